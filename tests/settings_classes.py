"""The settings of every service, to compare documents with."""

from gateway import GatewaySettings
from likes_service.settings import LikesSettings, NotificationWorkerSettings, ValidationWorkerSettings
from polls_service.settings import PollsSettings
from registry_service.settings import RegistrySettings
from timelines_service.settings import TimelinesSettings, TimelinesWorkerSettings
from users_service.settings import UsersSettings

SETTINGS = {
    "gateway": GatewaySettings,
    "registry": RegistrySettings,
    "users": UsersSettings,
    "timelines": TimelinesSettings,
    "likes": LikesSettings,
    "polls": PollsSettings,
}
WORKERS = {
    "timelines_worker": TimelinesWorkerSettings,
    "likes_validation_worker": ValidationWorkerSettings,
    "likes_notification_worker": NotificationWorkerSettings,
}
VARIABLES = {name.upper() for settings in SETTINGS.values() for name in settings.model_fields}
