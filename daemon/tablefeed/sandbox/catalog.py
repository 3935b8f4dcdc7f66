"""What the sandbox knows at its start: one tenant, its organization, two datasets and their datatables."""

from collections.abc import Iterator
from dataclasses import dataclass

TENANT = {"name": "Acme Trading", "createdDate": "2024-02-12T08:30:00.000Z", "plan": "Enterprise"}
ORGANIZATION = {"id": "organization-1", "name": "Acme Group", "createdDate": "2024-02-12T08:29:00.000Z"}


@dataclass(frozen=True, slots=True)
class Datatable:
    """One table that exports are uploaded to."""

    id: str
    display_name: str
    row_count: int

    def as_json(self) -> dict[str, object]:
        """As the API shows it, alone and within a dataset."""
        return {"id": self.id, "displayName": self.display_name, "rowCount": self.row_count}


@dataclass(frozen=True, slots=True)
class Dataset:
    """The datatables that belong to one process."""

    id: str
    display_name: str
    created_at: str
    datatables: tuple[Datatable, ...]

    def _head(self) -> dict[str, object]:
        return {"id": self.id, "displayName": self.display_name, "createdAt": self.created_at}

    def as_row(self) -> dict[str, object]:
        """As the API shows it in the list of datasets."""
        return {**self._head(), "datatableCount": len(self.datatables)}

    def as_json(self) -> dict[str, object]:
        """As the API shows it alone."""
        return {**self._head(), "datatables": [table.as_json() for table in self.datatables]}

    def holds(self, datatable_id: str) -> bool:
        """Whether the datatable belongs to this dataset."""
        return any(table.id == datatable_id for table in self.datatables)


DATASETS = (
    Dataset(
        "dataset-1",
        "Purchase to pay",
        "2024-02-13T09:00:00.000Z",
        (
            Datatable("table-456", "Purchase orders", 48_211),
            Datatable("table-457", "Goods receipts", 45_902),
            Datatable("table-458", "Invoices and payments", 91_377),
        ),
    ),
    Dataset(
        "dataset-2",
        "Order to cash",
        "2024-03-04T14:20:00.000Z",
        (
            Datatable("table-501", "Sales orders", 120_480),
            Datatable("table-502", "Deliveries", 118_013),
        ),
    ),
)


def datatables() -> Iterator[Datatable]:
    """All datatables of all datasets."""
    for dataset in DATASETS:
        yield from dataset.datatables


def find_datatable(datatable_id: str) -> Datatable | None:
    """The datatable of this id."""
    return next((table for table in datatables() if table.id == datatable_id), None)


def find_dataset(dataset_id: str) -> Dataset | None:
    """The dataset of this id."""
    return next((dataset for dataset in DATASETS if dataset.id == dataset_id), None)
