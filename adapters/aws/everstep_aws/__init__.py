"""Everstep on AWS Lambda, with DynamoDB as the store and SQS with EventBridge Scheduler as the waker.

Not implemented yet: the package reserves the name and the place. See README.md beside this folder.
"""

from __future__ import annotations

__all__: list[str] = []
