"""The service's routes: which request does what."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from backends.runtime.standin.accounts import Accounts
from backends.runtime.standin.devices import Device
from backends.runtime.standin.jobs import Job, listed, new_job
from backends.runtime.standin.queue import Queue
from backends.runtime.standin.replies import Call, Refused, Reply
from backends.runtime.standin.sessions import open_session
from backends.runtime.standin.stamps import stamp

Handler = Callable[[Call], Reply]


class Routes:
    """The routes of the service over a queue and an account."""

    def __init__(self, queue: Queue, accounts: Accounts) -> None:
        self.queue, self.accounts, self.settings = queue, accounts, queue.settings
        name = r"([^/]+)"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/backends", self._backends),
            ("GET", f"/backends/{name}/configuration", lambda c: Reply(body=self._device(c).configuration)),
            ("GET", f"/backends/{name}/properties", lambda c: Reply(body=self._device(c).properties)),
            ("GET", f"/backends/{name}/status", self._status),
            ("POST", "/jobs", self._submit),
            ("GET", "/jobs", lambda c: Reply(body=listed(self.queue.visible(by_id=False), c))),
            ("GET", f"/jobs/{name}", self._job_shown),
            ("DELETE", f"/jobs/{name}", self._delete),
            ("GET", f"/jobs/{name}/results", self._results),
            ("GET", f"/jobs/{name}/metrics", self._metrics),
            ("GET", f"/jobs/{name}/logs", self._logs),
            ("POST", f"/jobs/{name}/cancel", self._cancel),
            ("PUT", f"/jobs/{name}/tags", self._tags),
            ("POST", "/sessions", self._open),
            ("GET", f"/sessions/{name}", self._session),
            ("PATCH", f"/sessions/{name}", self._stop),
            ("DELETE", f"/sessions/{name}/close", self._close),
            ("GET", "/instances/usage", lambda c: self._usage()),
            ("GET", "/workloads", self._workloads),
        ]
        self._table = [(method, re.compile(pattern), handler) for method, pattern, handler in table]

    def answer(self, call: Call) -> Reply:
        """The answer to a request.

        Raises:
            Refused: It is not answered with what was asked for.
        """
        if call.path == "/identity/token" and call.method == "POST":
            return self.accounts.token(call)
        if call.path == "/v3/resources/search" and call.method == "POST":
            self.accounts.check(call, instance=False)
            return self.accounts.search()
        if call.path.startswith("/catalog/"):
            self.accounts.check(call, instance=False)
            return self.accounts.plan(replace(call, groups=(call.path.rpartition("/")[2],)))
        self.accounts.check(call, instance=True)
        known = False
        for method, pattern, handler in self._table:
            if match := pattern.fullmatch(call.path):
                known = True
                if method == call.method:
                    return handler(replace(call, groups=match.groups()))
        raise Refused(405 if known else 404, f"{call.method} {call.path} is not known here.")

    def _backends(self, call: Call) -> Reply:
        entries = [device.entry(self.queue.waiting(name)) for name, device in self.queue.devices.items()]
        return Reply(body={"devices": entries})

    def _device(self, call: Call) -> Device:
        device = self.queue.devices.get(call.groups[0])
        if device is None:
            raise Refused(404, f"Backend {call.groups[0]} not found.")
        return device

    def _status(self, call: Call) -> Reply:
        device = self._device(call)
        return Reply(body=device.status(self.queue.waiting(device.name)))

    def _submit(self, call: Call) -> Reply:
        job = new_job(call.json(), self.settings, set(self.queue.devices), time.time())
        self.queue.accept(job)
        answer = {"id": job.job_id, "backend": job.backend, "session_id": job.session_id, "private": job.private}
        return Reply(body=answer)

    def _job(self, call: Call) -> Job:
        job_id = call.groups[0]
        for job in self.queue.visible(by_id=True):
            if job.job_id == job_id:
                return job
        raise Refused(
            404,
            f"Job not found. Job ID: {job_id}",
            1291,
            "Verify the job ID is correct, that you have the correct access permissions, and try again.",
        )

    def _job_shown(self, call: Call) -> Reply:
        return Reply(body=self._job(call).entry(params=call.one("exclude_params") != "true"))

    def _delete(self, call: Call) -> Reply:
        job = self._job(call)
        if job.pending:
            raise Refused(409, f"Job {job.job_id} cannot be deleted: it is {job.state.lower()}.")
        job.deleted = True
        return Reply(204)

    def _results(self, call: Call) -> Reply:
        job = self._job(call)
        return Reply(204) if job.pending else Reply(text=job.result)

    def _metrics(self, call: Call) -> Reply:
        job = self._job(call)
        final = job.ended is not None and time.time() - job.ended >= self.settings.usage_late
        return Reply(body=job.metrics(final=final))

    def _logs(self, call: Call) -> Reply:
        job = self._job(call)
        if job.pending:
            raise Refused(404, f"Job {job.job_id} has no logs yet.")
        return Reply(text=f"{stamp(job.ended)} {job.state} {job.reason}".strip() + "\n")

    def _cancel(self, call: Call) -> Reply:
        self.queue.cancel(self._job(call))
        return Reply(204)

    def _tags(self, call: Call) -> Reply:
        tags = call.json().get("tags")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise Refused(400, "Request validation of body failed, because: tags must be strings.", 1208)
        self._job(call).tags = tags
        return Reply(204)

    def _open(self, call: Call) -> Reply:
        session = open_session(call.json(), self.settings, set(self.queue.devices), time.time())
        with self.queue.changed:
            self.queue.sessions[session.session_id] = session
        return Reply(body=session.details(time.time(), self.settings.idle))

    def _session(self, call: Call) -> Reply:
        session = self.queue.session(call.groups[0])
        return Reply(body=session.details(time.time(), self.settings.idle))

    def _stop(self, call: Call) -> Reply:
        session = self.queue.session(call.groups[0])
        accepting = call.json().get("accepting_jobs")
        if not isinstance(accepting, bool):
            raise Refused(400, "Request validation of body failed, because: accepting_jobs must be a boolean.", 1208)
        with self.queue.changed:
            if not accepting:
                session.stop(time.time(), self.settings.idle)
            elif session.closed is not None:
                raise Refused(409, "Session has been closed.", 1217)
            else:
                session.accepting = True
        return Reply(204)

    def _close(self, call: Call) -> Reply:
        self.queue.cancel_session(self.queue.session(call.groups[0]))
        return Reply(204)

    def _usage(self) -> Reply:
        spent, limit = self.queue.spent(), self.settings.limit
        body = {
            "instance_id": self.settings.instance,
            "plan_id": self.settings.plan,
            "usage_consumed_seconds": spent,
            "usage_limit_reached": limit is not None and spent >= limit,
        }
        if limit is not None:
            body |= {"usage_limit_seconds": limit, "usage_allocation_seconds": limit}
        return Reply(body=body)

    def _workloads(self, call: Call) -> Reply:
        """Jobs in job mode, sessions and batches, newest first; of the filters, `mode` and `limit`."""
        jobs = [job for job in self.queue.visible(by_id=False) if job.session_id is None]
        with self.queue.changed:
            found = [(job.created, {**job.entry(), "mode": "job"}) for job in jobs]
            found += [
                (session.created, session.details(time.time(), self.settings.idle))
                for session in self.queue.sessions.values()
            ]
        mode = {"session": "dedicated"}.get(call.one("mode"), call.one("mode"))
        kept = [entry for _, entry in sorted(found, key=lambda pair: -pair[0]) if mode in {"", entry["mode"]}]
        limit = call.one("limit", "20")
        if not limit.isdigit():
            raise Refused(400, "Request validation of query failed.", 1208)
        return Reply(body={"workloads": kept[: int(limit)], "total_count": len(kept)})
