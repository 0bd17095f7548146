"""Instagram direct messages: Messenger's forms under another name, with stories, and texts counted in bytes."""

from __future__ import annotations

from channels import Channel, Surroundings
from channels.messenger import PageHook, PageSender, limits_of
from channels.meta_graph import Graph, MetaFetcher, MetaProbe, pages_of
from channels.settings import InstagramSettings


def utf8(text: str) -> int:
    """Instagram counts bytes: a Chinese character is three."""
    return len(text.encode("utf-8", "surrogatepass"))


class InstagramHook(PageHook):
    object = "instagram"


class InstagramSender(PageSender):
    def path(self, account: str) -> str:
        """`me` is whom the token belongs to: the account, or the page that it is linked with; both ways send so."""
        return "me/messages"


def channel(name: str, settings: InstagramSettings, _around: Surroundings) -> Channel:
    graph = Graph(settings, pages_of(settings))
    return Channel(
        name,
        # Instagram documents no mark of the sender's own: its echoes are known by the app's id.
        sender=InstagramSender(name, graph, limits_of(settings, 1000, utf8, "bytes"), marks=False),
        hook=InstagramHook(name, settings),
        fetcher=MetaFetcher(graph),
        probe=MetaProbe(name, graph, "username"),
    )
