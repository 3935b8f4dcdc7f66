"""The settings: every key with its type, default and description, declared once.

The sample file is made from this (`sample.py`). `load.load` gives the settings; what keys demand of each other is
in `rules.py`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tablefeed.config.addresses import BaseUrl, LedgerUrl, Listen, WebhookUrl, parse_listen
from tablefeed.config.bandwidth import Bandwidth
from tablefeed.config.fields import (
    AbsolutePath,
    Duration,
    FeedName,
    Identifier,
    LongDuration,
    NodeName,
    NumberOrAuto,
    OptionalFile,
    Patterns,
    PlainDirectory,
    PositiveDuration,
    PutSize,
    SomePatterns,
    Suffix,
    Template,
    needed,
    option,
)
from tablefeed.model import Duplicates, Order, Ready

ONE_FEED = "name at least one feed, with name, directory and datatable_id"


def _some_feeds(value: tuple["FeedSettings", ...]) -> tuple["FeedSettings", ...]:
    if not value:
        raise ValueError(f"is empty: {ONE_FEED}")
    return value


class Section(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class ApiSettings(Section):
    """The ProcessMind API, and how often and as whom it is called."""

    base_url: BaseUrl = option("https://api.processmind.com", "where the API is")
    tenant_id: Identifier | None = option(None, "your tenant, as ProcessMind shows it", example="tenant-123")
    api_key_file: OptionalFile = option(
        "",
        "a file that holds the API key and nothing else; without it $TABLEFEED_API_KEY is taken, "
        "else the systemd credential `api-key`",
        example="/etc/tablefeed/api-key",
    )
    url_lifetime: LongDuration = option("1h", "how long an upload URL is asked to be valid")
    concurrency: int = option(8, "API calls at a time", ge=1)


class FeedSettings(Section):
    """One directory and the datatable that its files go to. Repeat the section for each feed."""

    name: FeedName = needed("how logs, pages and commands call the feed", example="orders")
    directory: AbsolutePath = needed("where the export drops its files", example="/srv/exports/orders")
    datatable_id: Identifier = needed("the datatable that receives the files", example="table-456")
    dataset_id: Identifier | None = option(
        None, "the dataset of the datatable; looked up through the API when left out", example="dataset-1"
    )
    include: SomePatterns = option(("*.csv", "*.xlsx"), "which files to take, compared without case")
    exclude: Patterns = option((".*", "~$*"), "which of them to leave: hidden files and Excel's lock files")
    recursive: bool = option(default=False, about="whether to look into subdirectories too")
    ready: Annotated[Ready, Field(strict=False)] = option(
        "closed",
        '"closed": nobody has the file open for writing; "stable": it did not change for `settle`, for network '
        'shares; "marker": a second file beside it says that it is whole',
    )
    marker_suffix: Suffix = option(".done", 'with "marker": orders.csv is whole when orders.csv.done is there')
    settle: Duration = option("2s", "how long a file must have been quiet before it is taken")
    empty_after: Duration = option(
        "24h", 'how long an empty file may wait for content before it is refused; "0s": for ever'
    )
    order: Annotated[Order, Field(strict=False)] = option(
        "oldest", 'which file goes first: "oldest", "newest" or "name"'
    )
    strict: bool = option(
        default=False,
        about="whether files go one at a time and in order, so that a file that must wait holds those behind it",
    )
    concurrency: int = option(0, "uploads of this feed at a time; 0: only the limit in [upload] counts", ge=0)
    priority: int = option(0, "feeds with a higher number are served first")
    shared: bool = option(
        default=False,
        about="whether all daemons of a fleet have this directory, so that each may deliver any of its files",
    )
    archive: Template = option(
        "archive",
        "where delivered files go, in the feed's directory or at an absolute path; codes such as %Y-%m stand for the "
        'time; "delete" removes them, "leave" lets them lie',
    )
    failed: PlainDirectory = option("failed", "where files go that can never be delivered, with the reason beside them")
    archive_keep: Duration = option("0s", 'how long files stay in the archive before they are deleted; "0s": for ever')
    duplicates: Annotated[Duplicates, Field(strict=False)] = option(
        "upload",
        'what to do with a file whose content this feed has delivered before, as far as the history reaches: "upload" '
        'it again, or "skip" it and only archive it',
    )
    expect_every: Duration = option(
        "0s", 'raise an alarm when no file arrived for this long, such as "26h" for a nightly export; "0s": never'
    )
    notify_url: WebhookUrl = option(
        "",
        'where each delivery, and trouble, is told by a POST of JSON (docs/webhooks.md shows its form); "": nowhere',
        example="https://hooks.example/erp",
    )
    notify_secret_file: OptionalFile = option(
        "",
        "a file that holds the secret which signs it, and nothing else; without it nothing is signed",
        example="/etc/tablefeed/notify-secret",
    )
    tenant_id: Identifier | None = option(None, "another tenant than in [api]", example="tenant-456")
    api_key_file: OptionalFile = option("", "another key than in [api]", example="/etc/tablefeed/other-key")
    base_url: BaseUrl | None = option(None, "another API than in [api]", example="https://api.processmind.com")


class UploadSettings(Section):
    """Sending files to the object store."""

    concurrency: NumberOrAuto = option(
        "auto",
        'uploads at a time, of all feeds together: a number, or "auto": as many as each store takes well, up to 64',
    )
    bandwidth: Bandwidth = option(
        "",
        'the most that all uploads send together: a rate such as "20MiB/s", or a timetable by local time of day such '
        'as [["08:00", "5MiB/s"], ["19:00", ""]]; "": no limit',
    )
    stall_timeout: PositiveDuration = option(
        "60s", "an upload that moves no byte for so long is broken off and repeated"
    )
    refresh_margin: Duration = option(
        "60s", "an upload URL that is valid for less than this is replaced before its use"
    )
    allow_http: bool = option(default=False, about="whether plain http may leave this machine")
    ca_file: OptionalFile = option("", 'certificates to trust, in PEM form; "": those of the system')
    max_size: PutSize = option("5GiB", "larger files are refused; stores take no more than 5GiB in one PUT")


class LedgerSettings(Section):
    """The durable record of every file, and the queue."""

    url: LedgerUrl = option(
        "sqlite:////var/lib/tablefeed/ledger.db",
        "an SQLite file on a local disk; or, for a fleet of daemons, a database of PostgreSQL that all of them name: "
        '"postgresql+psycopg://user:password@host/database"',
    )
    history_keep: Duration = option("90d", 'how long delivered and refused files stay in the history; "0s": for ever')


class FleetSettings(Section):
    """Several daemons with one ledger on PostgreSQL. Without one nothing here has an effect."""

    node: NodeName = option("", 'what this daemon is called among them, each differently; "": the name of its host')
    lease: LongDuration = option(
        "60s", "a daemon that gives no sign of life for so long loses what it works on to others"
    )
    api_concurrency: int = option(
        0, "API calls at a time of all daemons together; 0: each has its own [api] concurrency", ge=0
    )


class HttpSettings(Section):
    """The status page, its JSON, the metrics for Prometheus, and the health checks."""

    listen: Listen = option("127.0.0.1:8787", 'address and port; "" turns it off')
    token_file: OptionalFile = option(
        "",
        "a file that holds the token which whoever retries, pauses or resumes over HTTP must give; without it nothing "
        "can be changed there",
    )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, or None when turned off."""
        return parse_listen(self.listen)


class LogSettings(Section):
    """What is written to standard error."""

    format: Literal["auto", "json", "console"] = option(
        "auto", '"json", "console", or "auto": console on a terminal, else json'
    )
    level: Literal["debug", "info", "warning", "error"] = option(
        "info", 'the least that is written: "debug", "info", "warning" or "error"'
    )


class WatchSettings(Section):
    """Finding new files."""

    rescan: LongDuration = option("60s", "how often each directory is read through, whatever events told")
    polling: bool = option(default=False, about="whether to do without events from the kernel")


class ServiceSettings(Section):
    """The daemon itself."""

    shutdown_grace: Duration = option("30s", "how long uploads in flight may go on after SIGTERM")


class Settings(BaseSettings):
    """All of the configuration."""

    model_config = SettingsConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        case_sensitive=True,
    )

    api: ApiSettings = Field(default_factory=ApiSettings)
    feeds: Annotated[tuple[FeedSettings, ...], AfterValidator(_some_feeds)] = Field(strict=False)
    upload: UploadSettings = Field(default_factory=UploadSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    fleet: FleetSettings = Field(default_factory=FleetSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    service: ServiceSettings = Field(default_factory=ServiceSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has read: the sources that read by themselves stop at their first error."""
        return (init_settings,)


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
"""The sections that stand once, by name."""
