"""The network, as TorchServe's archiver wants it: one class in a file of its own.

https://github.com/pytorch/serve/tree/master/examples/image_classifier/resnet_18
"""

from torchvision.models.resnet import Bottleneck, ResNet


class ImageClassifier(ResNet):
    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
