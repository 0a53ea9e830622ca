"""What are things called, and where do their names come from?"""

from __future__ import annotations

import hashlib
from typing import NewType

SessionId = NewType("SessionId", str)
NodeId = NewType("NodeId", str)
JobId = NewType("JobId", str)
RequestId = NewType("RequestId", str)
TenantId = NewType("TenantId", str)
TraceId = NewType("TraceId", str)
InstanceId = NewType("InstanceId", str)


def derive_job_id(tenant: TenantId | None, session: SessionId, request: RequestId) -> JobId:
    """Name the one job of a request: the same request gets the same id on every instance.

    That makes "create if absent" on this id the whole of idempotency. The parts are length-prefixed, so that no
    choice of names by a client can make two different requests collide.
    """
    owner = tenant or ""
    name = f"{len(owner)}:{owner}{len(session)}:{session}{len(request)}:{request}"
    return JobId("job-" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest())
