"""The flows of python-odata against an F&O emulator over TLS with tokens.

Knows where the emulator is from EMULATOR_URL, TOKEN_URL, CLIENT_ID, CLIENT_SECRET; trusts its certificate by
REQUESTS_CA_BUNDLE. Prints a line per flow that held; the first that does not ends it with an exception.
"""

import os

import requests
from odata import ODataService
from odata.exceptions import ODataError
from odata.flags import ODataServerFlags

URL = os.environ["EMULATOR_URL"]


class Session(requests.Session):
    """Crosses companies with every request, as a client of F&O has to, and carries a token."""

    def __init__(self) -> None:
        super().__init__()
        answer = requests.post(
            os.environ["TOKEN_URL"],
            data={
                "grant_type": "client_credentials",
                "client_id": os.environ["CLIENT_ID"],
                "client_secret": os.environ["CLIENT_SECRET"],
                "scope": f"{URL}/.default",
            },
            timeout=60,
        )
        answer.raise_for_status()
        self.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def request(self, method, url, **options):
        if "cross-company" not in url and "$metadata" not in url:
            url += ("&" if "?" in url else "?") + "cross-company=true"
        return super().request(method, url, **options)


def holds(name: str) -> None:
    print(f"holds: {name}", flush=True)


def main() -> None:
    service = ODataService(
        f"{URL}/data/",
        reflect_entities=True,
        session=Session(),
        quiet_progress=True,
        server_flags=ODataServerFlags(skip_null_properties=True, provide_odata_type_annotation=False),
    )
    # Entities are named by their types, sets by their collections.
    by_set = {entity.__odata_collection__: entity for entity in service.entities.values()}
    group, currency = by_set["CustomerGroups"], by_set["Currencies"]
    keys = {prop.name for _, prop in group().__odata__.properties if prop.primary_key}
    assert keys == {"dataAreaId", "CustomerGroupId"}, keys
    holds("metadata becomes classes")

    company = by_set["LegalEntities"]()
    company.LegalEntityId, company.Name = "usmf", "Contoso"
    service.save(company)
    for number in range(12):
        one = group()
        one.dataAreaId, one.CustomerGroupId, one.Description = "usmf", f"P{number:02}", f"Group {number}"
        service.save(one)
    query = service.query(group)
    rows = query.filter(group.CustomerGroupId == "P*").order_by(group.CustomerGroupId.desc()).all()
    assert [row.CustomerGroupId for row in rows] == [f"P{n:02}" for n in reversed(range(12))], rows
    found = query.filter(group.CustomerGroupId == "P03").one()
    assert found.Description == "Group 3", found.Description
    page = query.filter(group.CustomerGroupId == "P*").order_by(group.CustomerGroupId.asc()).offset(5).limit(2)
    assert [row.CustomerGroupId for row in page.all()] == ["P05", "P06"]
    some = query.filter(group.CustomerGroupId == "P01").select(group.Description).all()
    assert [row["Description"] for row in some] == ["Group 1"], some
    holds("rows are created, filtered, ordered, paged")

    found.Description = "Renamed, with 'quotes'"
    service.save(found)
    again = service.query(group).filter(group.Description == "Renamed, with 'quotes'").all()
    assert [row.CustomerGroupId for row in again] == ["P03"], again
    service.delete(found)
    assert service.query(group).filter(group.CustomerGroupId == "P03").all() == []
    holds("rows are changed and deleted by their composite key")

    euro = currency()
    euro.CurrencyCode, euro.Name = "EUR", "Euro"
    service.save(euro)
    twice = currency()
    twice.CurrencyCode, twice.Name = "EUR", "Euro again"
    try:
        service.save(twice)
    except ODataError as error:
        assert "400" in error.status_code or "409" in error.status_code, error
        assert "already exists" in str(error), error
    else:
        raise AssertionError("a second row with the same key was taken")
    holds("a duplicate is refused in words")


main()
