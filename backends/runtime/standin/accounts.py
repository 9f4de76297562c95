"""The account: access tokens (IAM), the list of instances (Global Search) and their plans (Global Catalog)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

from backends.runtime.standin.replies import Call, Refused, Reply
from backends.runtime.standin.settings import Settings

LIFE = 3600
"""Seconds of an access token."""
PLAN_ID = "00000000-0000-4000-8000-0000000000aa"


class Accounts:
    """Gives access tokens for the one API key, and knows them again."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._key = secrets.token_bytes(32)

    def token(self, call: Call) -> Reply:
        """POST /identity/token: an access token (a signed JWT) for the API key."""
        key = parse_qs(call.body.decode(errors="replace")).get("apikey", [""])[0]
        if not hmac.compare_digest(key.encode(), self.settings.token.encode()):
            message = "Provided API key could not be found."
            return Reply(400, {"errorCode": "BXNIM0415E", "errorMessage": message, "context": {}})
        now = int(time.time())
        access = self._sign({"iss": "stand-in", "sub": "stand-in", "iat": now, "exp": now + LIFE})
        body = {"access_token": access, "refresh_token": "not_supported", "token_type": "Bearer", "scope": "ibm openid"}
        return Reply(body={**body, "expires_in": LIFE, "expiration": now + LIFE})

    def check(self, call: Call, *, instance: bool) -> None:
        """Check the Authorization header, and if wanted that the instance is ours.

        Raises:
            Refused: 401 or 403.
        """
        kind, _, access = call.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not self._knows(access):
            raise Refused(401, "Invalid credentials.", 1201, "Verify your credentials and try again.")
        if instance and call.headers.get("service-crn", "") != self.settings.instance:
            raise Refused(403, "You are not authorized to perform this action.", 1200, "Try again or contact support.")

    def search(self) -> Reply:
        """POST /v3/resources/search: the instances, of which there is one."""
        item: dict[str, Any] = {
            "crn": self.settings.instance,
            "name": "stand-in",
            "tags": [],
            "service_plan_unique_id": PLAN_ID,
            "doc": {"extensions": [{"allocation": "stand-in"}]},
        }
        return Reply(body={"items": [item], "limit": 100})

    def plan(self, call: Call) -> Reply:
        """GET /catalog/ID: the plan."""
        if call.groups != (PLAN_ID,):
            raise Refused(404, "Not found.")
        pricing = "free" if self.settings.plan == "open" else "paid"
        return Reply(
            body={
                "id": PLAN_ID,
                "name": self.settings.plan,
                "overview_ui": {"en": {"display_name": self.settings.plan.capitalize()}},
                "metadata": {"pricing": {"type": pricing}},
            }
        )

    def _sign(self, claims: dict[str, Any]) -> str:
        head = _part({"alg": "HS256", "typ": "JWT"}) + "." + _part(claims)
        return head + "." + self._signature(head)

    def _signature(self, head: str) -> str:
        return _text(hmac.new(self._key, head.encode(), hashlib.sha256).digest())

    def _knows(self, access: str) -> bool:
        head, _, signature = access.rpartition(".")
        if not hmac.compare_digest(self._signature(head).encode(), signature.encode()):
            return False
        middle = head.partition(".")[2]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return bool(claims["exp"] > time.time())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _part(content: dict[str, Any]) -> str:
    return _text(json.dumps(content, separators=(",", ":")).encode())
