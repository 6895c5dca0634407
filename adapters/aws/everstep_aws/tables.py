"""The table. The templates define the same one; a test compares them."""

from __future__ import annotations

from typing import Any

from .calls import make_client


def table_definition(table: str) -> dict[str, Any]:
    """The arguments of CreateTable: on demand, two sparse indexes of keys alone."""

    def keys(first: str, second: str) -> list[dict[str, str]]:
        return [{"AttributeName": first, "KeyType": "HASH"}, {"AttributeName": second, "KeyType": "RANGE"}]

    return {
        "TableName": table,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": type_}
            for name, type_ in (("pk", "S"), ("sk", "S"), ("gs", "S"), ("gb", "N"), ("gr", "S"))
        ],
        "KeySchema": keys("pk", "sk"),
        "GlobalSecondaryIndexes": [
            {"IndexName": "due", "KeySchema": keys("gs", "gb"), "Projection": {"ProjectionType": "KEYS_ONLY"}},
            {"IndexName": "roots", "KeySchema": keys("gr", "sk"), "Projection": {"ProjectionType": "KEYS_ONLY"}},
        ],
    }


def create_table(table: str, *, region: str | None = None, endpoint: str | None = None, client: Any = None) -> bool:
    """Create the table and wait until it can be used; False where it exists already.

    Args:
        client: of DynamoDB, where one is at hand; `region` and `endpoint` are then unused.

    Raises:
        botocore.exceptions.ClientError: it cannot be created.
    """
    made = client if client is not None else make_client("dynamodb", region=region, endpoint=endpoint)
    try:
        made.create_table(**table_definition(table))
    except made.exceptions.ResourceInUseException:
        return False
    made.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    return True
