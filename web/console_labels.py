"""The console's names of fixed things: one word a thing, translated by the catalogs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from web.words import N_, Words


def _table(names: dict[str, str]) -> Mapping[str, str]:
    return MappingProxyType(names)


STATES = _table(
    {
        "new": N_("New"),
        "open": N_("Open"),
        "pending": N_("Waiting for customer"),
        "resolved": N_("Resolved"),
        "closed": N_("Closed"),
    }
)
PRIORITIES = _table(
    {
        "low": N_("Low priority"),
        "normal": N_("Normal priority"),
        "high": N_("High priority"),
        "urgent": N_("Urgent"),
    }
)
MOODS = _table({"negative": N_("Negative"), "neutral": N_("Neutral"), "positive": N_("Positive")})
RISKS = _table(
    {
        "self_harm": N_("Self-harm risk"),
        "injury": N_("Injury or death"),
        "regulator": N_("Regulator"),
        "legal": N_("Legal action"),
        "media": N_("Media"),
    }
)
CHANNELS = _table(
    {
        "mail": N_("Mail"),
        "chat": N_("Web chat"),
        "api": N_("API"),
        "ingest": N_("Import"),
        "replay": N_("Replay"),
        "sms": N_("SMS"),
        "phone": N_("Phone"),
        "telegram": N_("Telegram"),
        "whatsapp": N_("WhatsApp"),
        "messenger": N_("Messenger"),
        "instagram": N_("Instagram"),
        "wechat": N_("WeChat"),
        "wecom": N_("WeCom"),
    }
)
INTENTS = _table(
    {
        "file_claim": N_("File a claim"),
        "claim_status": N_("Claim status"),
        "claim_documents": N_("Claim documents"),
        "claim_dispute": N_("Claim dispute"),
        "emergency_assistance": N_("Emergency assistance"),
        "coverage_question": N_("Coverage question"),
        "policy_change": N_("Policy change"),
        "policy_cancel": N_("Policy cancellation"),
        "policy_renewal": N_("Policy renewal"),
        "policy_documents": N_("Policy documents"),
        "premium_payment": N_("Premium payment"),
        "payment_problem": N_("Payment problem"),
        "refund_status": N_("Refund status"),
        "invoice_request": N_("Invoice request"),
        "quote_request": N_("Quote request"),
        "product_question": N_("Product question"),
        "buy_policy": N_("Buy a policy"),
        "general_info": N_("General information"),
        "human_agent": N_("Asks for a person"),
        "praise": N_("Praise"),
        "suggestion": N_("Suggestion"),
        "chitchat": N_("Small talk"),
        "complaint_service": N_("Complaint about service"),
        "complaint_sales": N_("Complaint about sales"),
        "privacy_request": N_("Privacy request"),
        "marketing_opt_out": N_("No more advertising"),
        "account_access": N_("Account access"),
        "app_problem": N_("App or website problem"),
        "fraud_report": N_("Fraud report"),
        "out_of_scope": N_("Out of scope"),
    }
)
ENTITIES = _table(
    {
        "policy_number": N_("Policy number"),
        "claim_number": N_("Claim number"),
        "ticket_number": N_("Ticket number"),
        "phone": N_("Phone number"),
        "identity_number": N_("Identity number"),
        "bank_number": N_("Card or account"),
        "email": N_("Mail address"),
        "amount": N_("Amount"),
        "date": N_("Date"),
        "plate": N_("Number plate"),
    }
)
ROLES = _table({"agent": N_("Agent"), "supervisor": N_("Supervisor"), "admin": N_("Administrator")})
OUT_STATES = _table(
    {
        "queued": N_("Queued for sending"),
        "sending": N_("Sending"),
        "sent": N_("Sent"),
        "delivered": N_("Delivered"),
        "failed": N_("Not sent"),
        "unknown": N_("Sending result unknown"),
    }
)
AUTOMATIC_KINDS = _table(
    {
        "bounce": N_("Bounce"),
        "report": N_("Report"),
        "auto_reply": N_("Out of office or automatic reply"),
        "no_reply": N_("No-reply sender"),
        "own": N_("Our own mail, come round again"),
    }
)
VIEWS = _table(
    {
        "active": N_("All active"),
        "due": N_("Overdue or nearly"),
        "look": N_("Look first"),
        "mine": N_("Mine"),
        "pending": N_("Waiting for customer"),
        "resolved": N_("Resolved"),
    }
)
#: what a ticket may be resolved as
CODES = _table(
    {
        "done": N_("Done"),
        "answered": N_("Question answered"),
        "duplicate": N_("Duplicate"),
        "not_ours": N_("Not our matter"),
        "no_answer": N_("Customer does not answer"),
    }
)
DONE = _table(
    {
        "replied": N_("Reply queued for sending."),
        "replied_pending": N_("Reply queued for sending. The ticket now waits for the customer."),
        "replied_resolved": N_("Reply queued for sending. The ticket is resolved."),
        "noted": N_("Note saved."),
        "assigned": N_("Assigned."),
        "freed": N_("The ticket is free again."),
        "transferred": N_("Transferred."),
        "pending": N_("The ticket now waits for the customer."),
        "resolved": N_("Resolved."),
        "closed": N_("Closed."),
        "reopened": N_("Reopened."),
        "prioritised": N_("Priority changed."),
        "again": N_("Queued for sending again."),
        "labelled": N_("Labelled. The ticket is where it belongs."),
        "revived": N_("It goes the usual way again and will be a ticket in a moment."),
        "retried": N_("Tried again. If it works, it will be a ticket in a moment."),
        "discarded": N_("Discarded. The original is kept."),
        "language": N_("Language changed."),
        "password": N_("Password changed."),
    }
)


def label(words: Words, table: Mapping[str, str], name: str) -> str:
    """The name of a thing; what the tables do not know is shown as it is."""
    known = table.get(name)
    return words.gettext(known) if known is not None else name
