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
PARTS = _table(
    {
        "image": N_("Picture"),
        "audio": N_("Voice"),
        "video": N_("Video"),
        "file": N_("File"),
        "sticker": N_("Sticker"),
        "location": N_("Place"),
        "contact": N_("Contact"),
        "reaction": N_("Reaction"),
        "button": N_("Button pressed"),
        "story": N_("Story"),
        "link": N_("Web link"),
        "call": N_("Call"),
        "unknown": N_("A kind of message that Sluice does not know; see the original"),
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
#: why two customers were joined
EVIDENCE = _table(
    {
        "same_number": N_("Same phone number, vouched for by both channels"),
        "code": N_("A code sent to the other address was said here"),
        "agent": N_("Decided by a person"),
    }
)
#: why two customers may be one
HINTS = _table(
    {
        "same_number": N_("Same phone number"),
        "caller": N_("Same phone number, as the caller showed it"),
        "contact": N_("Left as contact in the chat, not confirmed"),
        "same_address": N_("Same address on another channel, not confirmed"),
        "identity": N_("Both named this identity number"),
    }
)
#: why customers are not joined or parted
IDENTITY_REFUSALS = _table(
    {
        "same": N_("They are one customer already."),
        "differ": N_("They named different identity numbers: they are two people and cannot be joined."),
        "erased": N_("This customer was erased."),
        "undone": N_("It was undone before."),
        "unknown": N_("There is no such customer. Enter a ticket number or a whole address."),
        "several": N_("Several customers have this address. Enter a ticket number."),
        "address": N_("Enter a mail address, or a phone number with its country: +86138…"),
        "enough": N_("Enough codes were sent for now. Wait an hour."),
        "reason": N_("Say why, so that nobody need guess."),
    }
)
#: why an address cannot carry an answer
NO_WAY = _table(
    {
        "mute": N_("This channel only brings messages and takes no answers."),
        "no_way": N_("This channel has no way out now."),
        "bounced": N_("Messages to this address came back."),
        "chosen": N_("The customer takes no messages there."),
        "window": N_("The time for answers on this channel is over until the customer writes again."),
        "other": N_("This address is not the customer's any more. Load the page again."),
    }
)
#: the same in a word or two, beside the address
NO_WAY_SHORT = _table(
    {
        "mute": N_("takes no answers"),
        "no_way": N_("no way out"),
        "bounced": N_("unreachable"),
        "chosen": N_("wants no messages"),
        "window": N_("time for answers over"),
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
        "joined": N_("Joined. It can be undone."),
        "parted": N_("Parted again."),
        "code_sent": N_("Code queued for sending. The customer says it here."),
        "language": N_("Language changed."),
        "password": N_("Password changed."),
    }
)


def label(words: Words, table: Mapping[str, str], name: str) -> str:
    """The name of a thing; what the tables do not know is shown as it is."""
    known = table.get(name)
    return words.gettext(known) if known is not None else name
