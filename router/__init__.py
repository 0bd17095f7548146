"""The middle: pure decisions (`rules`, `sla`) and the verbs and loops (`flow`, `tickets`, `delivery`, `clock`)."""
