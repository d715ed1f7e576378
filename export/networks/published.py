"""What papers and model zoos print of the architectures, to hold our own counts against.

Figures stand as they are printed: millions of parameters (or the exact number)
and billions of multiply-adds, which the ResNet papers call FLOPs. Some papers
round, others cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

HE_2015: Final = "He et al. 2015"
ZAGORUYKO_2016: Final = "Zagoruyko 2016"
XIE_2016: Final = "Xie et al. 2016"
HUANG_2016: Final = "Huang et al. 2016"
HE_T_2018: Final = "He, T. et al. 2018"
TORCHVISION: Final = "torchvision"
TIMM: Final = "timm"
IMGCLSMOB: Final = "imgclsmob"


class Published(NamedTuple):
    """Figures as printed, ``None`` where the source has none."""

    parameters: str | None
    multiply_adds: str | None
    source: str
    note: str = ""


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        # Table 1 (multiply-adds; the nets of 50 layers and more stride in the 1x1), figure 3, table 6.
        "plain34": Published(None, "3.6", HE_2015),
        "resnet50_v1": Published(None, "3.8", HE_2015),
        "resnet101_v1": Published(None, "7.6", HE_2015),
        "resnet152_v1": Published(None, "11.3", HE_2015),
        "cifar_resnet20": Published("0.27", None, HE_2015),
        "cifar_resnet32": Published("0.46", None, HE_2015),
        "cifar_resnet44": Published("0.66", None, HE_2015),
        "cifar_resnet56": Published("0.85", None, HE_2015),
        "cifar_resnet110": Published("1.7", None, HE_2015),
        "cifar_resnet1202": Published("19.4", None, HE_2015),
        # Table 5 of "Wide Residual Networks".
        "cifar_preresnet110": Published("1.7", None, ZAGORUYKO_2016),
        "cifar_preresnet164": Published("1.7", None, ZAGORUYKO_2016),
        "cifar_wrn16_8": Published("11.0", None, ZAGORUYKO_2016),
        "cifar_wrn28_10": Published("36.5", None, ZAGORUYKO_2016),
        "cifar_wrn40_4": Published("8.9", None, ZAGORUYKO_2016),
        # https://github.com/osmr/imgclsmob
        "cifar_resnet164": Published("1,704,154", None, IMGCLSMOB),
        "cifar_resnet1001": Published("10,328,602", None, IMGCLSMOB),
        "cifar_preresnet1001": Published("10,327,706", None, IMGCLSMOB, "Zagoruyko 2016 prints 10.2 M"),
        # Table 2 of "Densely Connected Convolutional Networks".
        "cifar_densenet_bc100_12": Published("0.8", None, HUANG_2016),
        "cifar_densenet_bc190_40": Published("25.6", None, HUANG_2016),
        "resnext50_32x4d": Published("25,028,904", "4.230", TORCHVISION),
        # Table 5 of "Bag of Tricks".
        "resnet50c": Published(None, "4.3", HE_T_2018),
        "resnet50d": Published("25.58", "4.3", HE_T_2018 + " and timm"),
        # The weights' own pages: https://pytorch.org/vision/stable/models.html
        "resnet18": Published("11,689,512", "1.814", TORCHVISION),
        "resnet34": Published("21,797,672", "3.664", TORCHVISION),
        "resnet50": Published("25,557,032", "4.089", TORCHVISION),
        "resnet101": Published("44,549,160", "7.801", TORCHVISION),
        "resnet152": Published("60,192,808", "11.514", TORCHVISION),
        "wide_resnet50_2": Published("68,883,240", "11.398", TORCHVISION),
        "wide_resnet101_2": Published("126,886,696", "22.753", TORCHVISION),
        "resnext101_32x8d": Published("88,791,336", "16.414", TORCHVISION),
        "resnext101_64x4d": Published("83,455,272", "15.460", TORCHVISION),
        "densenet121": Published("7,978,856", "2.834", TORCHVISION),
        "densenet161": Published("28,681,000", "7.728", TORCHVISION),
        "densenet169": Published("14,149,480", "3.360", TORCHVISION),
        "densenet201": Published("20,013,928", "4.291", TORCHVISION),
        # https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv
        "resnet26": Published("16.00", None, TIMM),
        "resnet26d": Published("16.01", None, TIMM),
        "resnet26t": Published("16.01", None, TIMM),
        "resnet18d": Published("11.71", None, TIMM),
        "resnet34d": Published("21.82", None, TIMM),
        "resnet101d": Published("44.57", None, TIMM),
        "resnet152d": Published("60.21", None, TIMM),
        "resnet200d": Published("64.69", None, TIMM),
        "seresnet50": Published("28.09", None, TIMM),
        "seresnext50_32x4d": Published("27.56", None, TIMM),
        "seresnext101_32x4d": Published("48.96", None, TIMM),
        "ecaresnet26t": Published("16.01", None, TIMM),
        "ecaresnet50d": Published("25.58", None, TIMM),
        "ecaresnet101d": Published("44.57", None, TIMM),
        "resnetblur50": Published("25.56", None, TIMM),
        "resnetv2_50": Published("25.55", None, TIMM),
        "resnetv2_101": Published("44.54", None, TIMM),
        "resnext101_32x4d": Published("44.18", None, TIMM),
    }
)
