"""The settings, by the part of the service that takes them: types, bounds, defaults and what they mean."""

from service.settings.access import AccessSettings as AccessSettings
from service.settings.connections import ConnectionSettings as ConnectionSettings
from service.settings.models import CanarySettings as CanarySettings
from service.settings.models import InferenceSettings as InferenceSettings
from service.settings.models import ProviderSettings as ProviderSettings
from service.settings.models import StoreSettings as StoreSettings
from service.settings.operation import DriftSettings as DriftSettings
from service.settings.operation import LogSettings as LogSettings
from service.settings.operation import ServerSettings as ServerSettings
from service.settings.operation import TraceSettings as TraceSettings
from service.settings.requests import DecodeSettings as DecodeSettings
from service.settings.requests import JobSettings as JobSettings
from service.settings.requests import LimitSettings as LimitSettings
from service.settings.values import Folder as Folder
from service.settings.values import Group as Group
from service.settings.values import ImageFormat as ImageFormat
from service.settings.values import Provider as Provider
