"""Everything that speaks HTTP: API, chat, console, public pages, sign-in, health. Writes through `router`."""
