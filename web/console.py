"""The console: all its pages under one router."""

from __future__ import annotations

from fastapi import APIRouter

from web import (
    console_customer,
    console_intake,
    console_live,
    console_me,
    console_parts,
    console_queue,
    console_review,
    console_signin,
    console_ticket,
    console_verbs,
)
from web.console_page import error_page

__all__ = ["error_page", "routes"]

routes = APIRouter(include_in_schema=False)
for part in (
    console_signin,
    console_queue,
    console_ticket,
    console_parts,
    console_verbs,
    console_review,
    console_customer,
    console_intake,
    console_me,
    console_live,
):
    routes.include_router(part.routes)
