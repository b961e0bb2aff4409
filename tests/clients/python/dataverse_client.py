"""The flows of dataverse-api against a Dataverse emulator over TLS with tokens.

Knows where the emulator is from EMULATOR_URL, TOKEN_URL, CLIENT_ID, CLIENT_SECRET; trusts its certificate by
REQUESTS_CA_BUNDLE. Prints a line per flow that held; the first that does not ends it with an exception.
"""

import os
import uuid

import requests
from dataverse_api.dataverse import DataverseClient
from dataverse_api.errors import DataverseAPIError
from dataverse_api.metadata.attributes import IntegerAttributeMetadata, StringAttributeMetadata
from dataverse_api.metadata.complex_properties import create_label
from dataverse_api.metadata.entity import define_entity
from dataverse_api.metadata.relationships import define_relationship
from dataverse_api.utils.batching import BatchCommand, RequestMethod

URL = os.environ["EMULATOR_URL"]


def session() -> requests.Session:
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
    own = requests.Session()
    own.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return own


def holds(name: str) -> None:
    print(f"holds: {name}", flush=True)


def statuses(answers) -> list[int]:
    return [answer.status_code for answer in answers]


def names(entity, filter: str) -> list[str]:
    return sorted(row["name"] for row in entity.read(select=["name"], filter=filter))


def rows(entity) -> None:
    """Rows one by one, in bulk and in batches."""
    assert entity.entity_set_name == "accounts", entity.entity_set_name
    assert entity.primary_id_attr == "accountid", entity.primary_id_attr
    assert entity.supports_create_multiple, "CreateMultiple is not announced"
    assert entity.supports_update_multiple, "UpdateMultiple is not announced"
    assert "primarycontactid" in str(entity.relationships.single_valued)
    holds("a table describes itself")

    made = entity.create([{"name": "One by one"}], return_created=True)
    assert statuses(made) == [201], statuses(made)
    first = made[0].json()["accountid"]
    answers = entity.create([{"name": f"Bulk {n:03}"} for n in range(120)], mode="multiple", batch_size=50)
    assert statuses(answers) == [200, 200, 200], statuses(answers)
    assert sum(len(answer.json()["Ids"]) for answer in answers) == 120
    answers = entity.create([{"name": f"Batch {n:03}"} for n in range(30)], mode="batch", batch_size=20)
    assert statuses(answers) == [200, 200], statuses(answers)
    assert len(names(entity, "startswith(name,'Batch ')")) == 30
    holds("rows are created one by one, in bulk, in batches")

    paged = entity.read(select=["name"], filter="startswith(name,'Bulk ')", order_by="name", page_size=50)
    assert [row["name"] for row in paged] == [f"Bulk {n:03}" for n in range(120)]
    formatted = entity.read(
        select=["name", "statecode"], filter=f"accountid eq {first}", return_formatted_values=True
    )[0]
    assert formatted["statecode@OData.Community.Display.V1.FormattedValue"] == "Active", formatted
    assert len(entity.read(top=7)) == 7
    holds("pages, order, formatted values, top")

    fresh = str(uuid.uuid4())
    answers = entity.upsert([{"accountid": first, "name": "Renamed"}, {"accountid": fresh, "name": "Upserted"}])
    assert statuses(answers) == [204, 204], statuses(answers)
    assert names(entity, "name eq 'Renamed' or name eq 'Upserted'") == ["Renamed", "Upserted"]
    answers = entity.upsert([{"accountid": fresh, "name": "By batch"}], mode="batch")
    assert statuses(answers) == [200], statuses(answers)
    assert names(entity, f"accountid eq {fresh}") == ["By batch"]
    answers = entity.upsert([{"accountid": fresh, "telephone1": "1234"}])
    answers = entity.delete_columns(["telephone1"], ids=[fresh])
    assert statuses(answers) == [204], statuses(answers)
    assert entity.read(select=["telephone1"], filter=f"accountid eq {fresh}")[0]["telephone1"] is None
    holds("upsert and single columns")

    answers = entity.delete(mode="batch", filter="startswith(name,'Batch ')")
    assert statuses(answers) == [200], statuses(answers)
    assert names(entity, "startswith(name,'Batch ')") == []
    answers = entity.delete(ids=[first, fresh])
    assert statuses(answers) == [204, 204], statuses(answers)
    answers = entity.delete(ids=[first])
    assert statuses(answers) == [404], statuses(answers)
    holds("rows are deleted")


def metadata(client: DataverseClient) -> None:
    """A table with columns and a relationship, made and used."""
    assert 1033 in client.get_language_codes()
    name = StringAttributeMetadata(
        schema_name="new_Title", display_name=create_label(label="Title"), is_primary_name=True, max_length=50
    )
    table = define_entity(
        schema_name="new_Book", attributes=[name], display_name="Book", display_collection_name="Books"
    )
    assert client.create_entity(table).status_code == 204
    book = client.entity("new_book")
    pages = IntegerAttributeMetadata(schema_name="new_Pages", display_name=create_label(label="Pages"), min_value=0, max_value=10_000)
    assert book.add_attribute(pages).status_code == 204
    assert client.get_entity_definition("new_book").schema_name == "new_Book"
    relation = define_relationship(
        schema_name="new_account_book", referencing_entity="new_book", referenced_entity="account", lookup="new_Owner"
    )
    assert client.create_relationship(relation).status_code == 204
    assert client.get_relationship_definition("new_account_book").schema_name == "new_account_book"
    made = book.create([{"new_title": "Ulysses", "new_pages": 730}], return_created=True)
    assert made[0].json()["new_pages"] == 730
    assert book.remove_attribute(logical_name="new_pages").status_code == 204
    assert client.delete_entity("new_book").status_code == 204
    try:
        client.entity("new_book")
    except DataverseAPIError as error:
        assert error.response.status_code == 404, error
    else:
        raise AssertionError("the table is still there")
    holds("a table is made, used, and removed again")


def batch(client: DataverseClient) -> None:
    """A batch of several kinds of requests."""
    own = str(uuid.uuid4())
    commands = [
        BatchCommand(url="accounts", method=RequestMethod.POST, data={"accountid": own, "name": "Mixed"}),
        BatchCommand(url=f"accounts({own})", method=RequestMethod.PATCH, data={"name": "Mixed again"}),
        BatchCommand(url=f"accounts({own})?$select=name", method=RequestMethod.GET),
        BatchCommand(url=f"accounts({own})", method=RequestMethod.DELETE),
    ]
    (answer,) = client.submit_batch(commands)
    assert answer.status_code == 200, answer.text
    assert answer.text.count("HTTP/1.1 204") == 3, answer.text
    assert "Mixed again" in answer.text, answer.text
    holds("a batch of several kinds")


def main() -> None:
    client = DataverseClient(session(), URL + "/")
    rows(client.entity("account"))
    batch(client)
    metadata(client)


main()
