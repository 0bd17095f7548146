"""HTML mail to text, without what the reader could not see: hidden text is how a model is talked into things."""

from __future__ import annotations

import html as html_entities
import importlib
import re
from functools import lru_cache
from itertools import islice
from typing import Any

from channels.mail_text import SPACES, UNWANTED

#: HTML above this many characters is cut before it is laid out: one mail never costs seconds.
MAX_HTML = 1_000_000
#: more elements than this are stripped of tags and not laid out
MAX_ELEMENTS = 20_000
#: how far up the ground behind white letters is looked for
_ANCESTORS = 60

_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|font-size\s*:\s*0{0,9}(?:\.0{0,9})?(?:px|pt|em|rem|%)?\s*(?:!|;|$)"
    r"|(?<![-\w])opacity\s*:\s*0{0,9}(?:\.0{0,9})?\s*(?:!|;|$)|mso-hide\s*:\s*all|text-indent\s*:\s*-\d{3,}"
    r"|(?<![-\w])(?:left|top|right)\s*:\s*-\d{4,}|transform\s*:\s*scale\(\s*0\s*\)"
    r"|clip\s*:\s*rect\(\s*0[a-z]*[\s,]+0[a-z]*[\s,]+0",
    re.I,
)
_NO_HEIGHT = re.compile(r"(?<!line-)(?:max-)?(?:height|width)\s*:\s*0(?:px|pt|em|%)?\s*(?:!|;|$)", re.I)
_COLOUR = re.compile(r"(?<![-\w])color\s*:\s*([^;!]+)", re.I)
_BACKGROUND = re.compile(r"background(?:-color)?\s*:\s*([^;!]+)", re.I)
_WHITES = frozenset({"#fff", "#ffffff", "white", "rgb(255,255,255)", "transparent", "rgba(0,0,0,0)"})
_WHITE = re.compile(r"(?<![-\w])color\s*[:=]\s*[\"']?(?:#fff(?:fff)?|white|rgb\(255,\s*255,\s*255\))(?![\w])", re.I)
_GROUND = re.compile(r"<[^<>]*(?:background|bgcolor|class\s*=)", re.I)
_PRE = re.compile(r"white-space\s*:\s*pre", re.I)
_STYLE_BLOCK = re.compile(r"<style\b[^<>]{0,500}>(.*?)(?:</style|\Z)", re.I | re.S)
_CSS_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
_SIMPLE_SELECTOR = re.compile(r"([a-z][a-z0-9]*)?(?:([.#])([\w-]+))?", re.I)
_TOKEN = re.compile(r"<(/?)([a-zA-Z][^\s/>]{0,40})([^<>]*)>|<!--.*?(?:-->|\Z)|([^<]+)|<", re.S)
_INVISIBLE_TAGS = frozenset({"script", "style", "head", "title", "template", "noscript", "object", "svg", "math"})
_VOID_TAGS = frozenset(
    {
        "area",
        "base",
        "br",
        "col",
        "embed",
        "frame",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    }
)
_BREAKING_TAGS = frozenset(
    {"blockquote", "br", "dd", "div", "dt", "h1", "h2", "h3", "h4", "hr", "li", "ol", "p", "pre", "table", "tr", "ul"}
)
_STYLE_ATTRIBUTE = re.compile(r"style\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|(\S+))", re.I)
_QUOTE_OPEN, _QUOTE_CLOSE = "\ue0f0", "\ue0f1"
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")

Selectors = frozenset[tuple[str, str, str]]


def html_to_text(html: str) -> str:
    """What a reader sees of an HTML mail; blockquotes come out as `>` lines. Never raises."""
    html = UNWANTED.sub("", html[:MAX_HTML].replace(_QUOTE_OPEN, "").replace(_QUOTE_CLOSE, ""))
    hidden = _hidden_selectors(html)
    try:
        text = _laid_out(html, hidden)
    except (ValueError, RecursionError, LookupError, AssertionError, TypeError, ArithmeticError):
        text = ""  # the layout library met something strange
    if not text.strip():
        text = _stripped(html, hidden)
    lines = [line.rstrip() for line in _quoted(text.replace("\xa0", " ")).split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")


def _hidden_selectors(html: str) -> Selectors:
    """The simple selectors of the style sheet that hide, outside of @media (those hide on some screens only)."""
    found: set[tuple[str, str, str]] = set()
    if "<style" not in html and "<STYLE" not in html:
        return frozenset()
    css = _CSS_COMMENT.sub("", "".join(_STYLE_BLOCK.findall(html)[:20]))[:200_000]
    depth, selector, skipped_from = 0, "", -1
    for piece in re.split(r"([{}])", css.replace("<!--", "").replace("-->", "")):
        if piece == "{":
            depth += 1
            if selector.lstrip().startswith("@") and skipped_from < 0:
                skipped_from = depth
        elif piece == "}":
            if depth == skipped_from:
                skipped_from = -1
            depth = max(0, depth - 1)
        elif depth and skipped_from < 0 and (_HIDING.search(piece) is not None):
            for one in selector.split(",")[:200]:
                match = _SIMPLE_SELECTOR.fullmatch(one.strip())
                if match and (match[1] or match[2]) and (match[1] or "").lower() not in {"html", "body"}:
                    found.add(((match[1] or "").lower(), match[2] or "", match[3] or ""))
        if piece not in "{}":
            selector = piece
    return frozenset(found)


def _hides(style: str) -> bool:
    if not style:
        return False
    if _HIDING.search(style) or (_NO_HEIGHT.search(style) and "overflow" in style.lower()):
        return True
    colour = _COLOUR.search(style)
    background = _BACKGROUND.search(style)
    if colour is None:
        return False
    shade = colour[1].replace(" ", "").lower()
    if background is not None:
        return shade == background[1].replace(" ", "").lower()
    return shade in {"transparent", "rgba(0,0,0,0)"}


def _white_on_nothing(element: Any, style: str) -> bool:
    """White letters where no element around sets a ground: nobody can read them."""
    colour = _COLOUR.search(style)
    shade = colour[1] if colour else (element.get("color") or "" if element.tag == "font" else "")
    if shade.replace(" ", "").lower() not in _WHITES:
        return False
    for around in (element, *islice(element.iterancestors(), _ANCESTORS)):
        if around.get("bgcolor") or around.get("background") or "background" in (around.get("style") or "").lower():
            return False
        if around.get("class"):
            return False  # a style sheet may set the ground
    return True


def _selected(tag: str, classes: str, ident: str, selectors: Selectors) -> bool:
    names = [("", ""), *((".", name) for name in classes.split()), *([("#", ident)] if ident else [])]
    return any((t, kind, name) in selectors for kind, name in names for t in ("", tag))


def _laid_out(html: str, hidden: Selectors) -> str:
    lxml_html, engine, config = _html_tools()
    parser = lxml_html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        tree = lxml_html.document_fromstring(html.encode(), parser=parser)
    except (lxml_html.etree.ParserError, lxml_html.etree.XMLSyntaxError):
        return ""
    elements = list(tree.iter())
    if len(elements) > MAX_ELEMENTS:
        return ""
    drop = []
    for element in elements:
        tag, style = element.tag, element.get("style") or ""
        if not isinstance(tag, str):
            continue
        if (
            tag in _INVISIBLE_TAGS
            or _hides(style)
            or "hidden" in element.attrib
            or ((style or tag == "font") and _white_on_nothing(element, style))
            or (hidden and _selected(tag, element.get("class") or "", element.get("id") or "", hidden))
        ):
            drop.append(element)
        elif tag == "blockquote":
            element.text = f"{_QUOTE_OPEN}{element.text or ''}"
            element.tail = f"{_QUOTE_CLOSE}{element.tail or ''}"
    for element in drop:
        if element.getparent() is not None:
            element.drop_tree()
    for element in elements:
        # styles were read above; the layout would turn a padding of 10,000 em into blanks
        style = element.attrib.pop("style", None)
        if style and _PRE.search(style):
            element.set("style", "white-space: pre")
    text: str = engine(tree, config).get_text()
    return text


def _stripped(html: str, hidden: Selectors) -> str:
    """Tags taken out one by one, for HTML that cannot be laid out; what is hidden stays out here too."""
    out: list[str] = []
    unseen: list[str] = []  # open tags since the first hidden one
    grounded = _GROUND.search(html) is not None
    for match in _TOKEN.finditer(html):
        closing, tag, attributes, text = match[1], (match[2] or "").lower(), match[3] or "", match[4]
        if text is not None:
            if not unseen:
                out.append(SPACES.sub(" ", text))
            continue
        if not tag:
            continue
        if unseen:
            if closing and tag in unseen[-50:]:
                while unseen and unseen.pop() != tag:
                    pass
            elif not closing and tag not in _VOID_TAGS and unseen[0] not in {"script", "style"}:
                unseen.append(tag)
            continue
        if (
            not closing
            and tag not in _VOID_TAGS
            and (_tag_hides(tag, attributes, hidden) or (not grounded and _WHITE.search(attributes) is not None))
        ):
            unseen.append(tag)
        elif tag in _BREAKING_TAGS:
            out.append("\n")
    return html_entities.unescape("".join(out))


def _tag_hides(tag: str, attributes: str, hidden: Selectors) -> bool:
    if tag in _INVISIBLE_TAGS and tag != "head":
        return True
    style = _STYLE_ATTRIBUTE.search(attributes)
    if style is not None and _hides(style[1] or style[2] or style[3] or ""):
        return True
    if re.search(r"(?<![\w\"'=-])hidden(?![\w-])", attributes, re.I):
        return True
    if not hidden:
        return False
    classes = re.search(r"class\s*=\s*[\"']?([^\"'>]*)", attributes, re.I)
    ident = re.search(r"\bid\s*=\s*[\"']?([^\"'>\s]*)", attributes, re.I)
    return _selected(tag, classes[1] if classes else "", ident[1] if ident else "", hidden)


def _quoted(text: str) -> str:
    """Lines between the marks get one `>` for each blockquote around them."""
    if _QUOTE_OPEN not in text:
        return text
    out: list[str] = []
    depth = 0
    for piece in re.split(f"([{_QUOTE_OPEN}{_QUOTE_CLOSE}])", text):
        if piece == _QUOTE_OPEN:
            depth += 1
        elif piece == _QUOTE_CLOSE:
            depth = max(0, depth - 1)
        else:
            mark = ">" * min(depth, 20)
            lines = piece.strip("\n").split("\n") if depth else piece.split("\n")
            out.extend(f"{mark} {line.strip()}" if depth else line for line in lines if line.strip() or not depth)
    return "\n".join(out)


@lru_cache(maxsize=1)
def _html_tools() -> tuple[Any, Any, Any]:
    """lxml and inscriptis, loaded with the first HTML-only mail: they are heavy, and most mail has a text part."""
    lxml_html = importlib.import_module("lxml.html")
    engine = importlib.import_module("inscriptis.html_engine").Inscriptis
    css = importlib.import_module("inscriptis.css_profiles").CSS_PROFILES["strict"]
    config = importlib.import_module("inscriptis.model.config").ParserConfig(css=css)
    return lxml_html, engine, config
