"""What customers read in the chat and on the tracking page, in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from babel.dates import format_datetime
from fastapi import Request

LANGUAGES = ("zh", "en")
TAGS = {"zh": "zh-Hans", "en": "en"}

#: of the widget's script; `{...}` are filled there
CHAT: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "title": "在线客服",
        "intro": "您好，请问有什么可以帮您？系统会自动分派您的问题，由工作人员回复您。",
        "privacy": "聊天内容仅用于处理您的问题。请不要在这里发送密码或银行卡密码。",
        "field": "您的消息",
        "send": "发送",
        "attach": "添加文件",
        "close": "收起聊天",
        "more": "更多",
        "leave": "留下联系方式",
        "end": "结束聊天",
        "forget": "在这台设备上忘记我",
        "forget_hint": "清除这台设备上的聊天记录。公用电脑请使用此项。",
        "new": "开始新的聊天",
        "track": "查看进度",
        "ended": "聊天已结束。",
        "forgotten": "这台设备上已没有您的聊天记录。",
        "sending": "发送中",
        "sent": "已发送",
        "failed": "未发送",
        "retry": "重试",
        "discard": "删除",
        "you": "您",
        "bot": "系统自动回复",
        "us": "客服",
        "typing": "正在输入……",
        "connecting": "正在连接……",
        "reconnecting": "正在重新连接，您的文字已保留。",
        "online": "已连接",
        "elsewhere": "这个网站不能使用聊天。",
        "left": "还可输入 {n} 个字符",
        "over": "超出 {n} 个字符",
        "too_long": "消息太长，最多 {n} 个字符。",
        "too_fast": "发送得太快了，{n} 秒后自动重试。",
        "later": "暂时无法保存，稍后自动重试。",
        "too_big": "文件太大，最多 {n} MB。请压缩后重试。",
        "bad_type": "不支持这种文件。请发送图片、视频（MP4）或 PDF。",
        "unsafe": "文件没有通过安全检查，未发送。",
        "upload_broken": "上传中断，文件还在这里。请重试。",
        "uploading": "正在上传 {n}%",
        "cancel": "取消",
        "file": "文件：{name}",
        "away": "暂时没有人接待。请留下电子邮箱或电话，我们会在同一个工单里回复您。",
        "contact": "电子邮箱或电话",
        "contact_send": "留下",
        "contact_wrong": "请填写电子邮箱或电话号码。",
        "contact_first": "请先写下您的问题，再留下联系方式。",
        "contact_done": "已收到您的联系方式。",
        "contact_line": "我的联系方式：{contact}",
        "with": "{number}，{department}，{state}",
        "agent": "{agent} 正在为您服务",
        "unread": "{n} 条新消息",
        "log": "聊天记录",
        "new_below": "有新消息",
    },
    "en": {
        "title": "Chat with us",
        "intro": "Hello, how can we help? A bot sorts your message, and people answer it.",
        "privacy": "We use this chat only to handle your request. Never send a password or a card PIN here.",
        "field": "Your message",
        "send": "Send",
        "attach": "Add a file",
        "close": "Close chat",
        "more": "More",
        "leave": "Leave an e-mail or phone",
        "end": "End chat",
        "forget": "Forget me on this device",
        "forget_hint": "Clears this chat from this device. Use it on a shared computer.",
        "new": "New chat",
        "track": "Track it",
        "ended": "The chat has ended.",
        "forgotten": "Nothing of your chat is left on this device.",
        "sending": "sending",
        "sent": "sent",
        "failed": "not sent",
        "retry": "Try again",
        "discard": "Remove",
        "you": "You",
        "bot": "Automatic message",
        "us": "Support",
        "typing": "typing …",
        "connecting": "Connecting …",
        "reconnecting": "Reconnecting. Your text is kept.",
        "online": "Connected",
        "elsewhere": "This site may not use the chat.",
        "left": "{n} characters left",
        "over": "{n} characters too many",
        "too_long": "Too long: {n} characters at most.",
        "too_fast": "That was fast. Trying again in {n} s.",
        "later": "It could not be stored just now. Trying again.",
        "too_big": "Too big: {n} MB at most. Make it smaller and try again.",
        "bad_type": "This kind of file is not accepted. Send a picture, a video (MP4) or a PDF.",
        "unsafe": "The file did not pass the safety check and was not sent.",
        "upload_broken": "The upload broke off. The file is still here; try again.",
        "uploading": "Uploading {n}%",
        "cancel": "Cancel",
        "file": "File: {name}",
        "away": "Nobody is free just now. Leave an e-mail address or phone number, and we answer on the same request.",
        "contact": "E-mail or phone",
        "contact_send": "Leave it",
        "contact_wrong": "Enter an e-mail address or a phone number.",
        "contact_first": "Write your message first, then leave your contact.",
        "contact_done": "We have your contact.",
        "contact_line": "My contact: {contact}",
        "with": "{number}, {department}, {state}",
        "agent": "{agent} is with you",
        "unread": "{n} new messages",
        "log": "Conversation",
        "new_below": "New messages",
    },
}

#: of the pages
PAGES: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "chat_title": "在线聊天",
        "chat_lead": "用右下角的按钮和我们聊天，或者直接在下面留言。",
        "chat_what": "这是 Sluice 网页聊天的演示页。您在这里写的话会成为一张工单，"
        "系统把它分派给负责的部门，答复回到同一个聊天窗口。",
        "chat_how_title": "放到您的网站上",
        "chat_how": "把下面这一行加到网页里，并把网站的来源写进设置 web.chat.origins。",
        "chat_steps_title": "接下来会怎样",
        "chat_step_1": "您写下问题，收到工单编号和查询链接。",
        "chat_step_2": "系统判断由哪个部门处理；没有把握时由人工分拣。",
        "chat_step_3": "部门的工作人员回复您，答复出现在这里。",
        "noscript": "您的浏览器没有运行脚本。您仍然可以在这里写信给我们；刷新页面可以看到答复。",
        "reload": "刷新看答复",
        "field": "您的消息",
        "send": "发送",
        "longest": "最多 {n} 个字符",
        "form_wrong": "没有发送。请填写消息，最多 {n} 个字符。",
        "form_fast": "发送得太快了，没有发送。请稍后再试。",
        "other_language": "English",
        "you": "您",
        "us": "我们",
        "bot": "系统自动回复",
        "file": "文件：{name}",
        "track_title": "工单 {number}",
        "track_heading": "您的工单 {number}",
        "track_steps": "进度",
        "step_received": "已收到",
        "step_working": "处理中",
        "step_resolved": "已解决",
        "step_closed": "已关闭",
        "state_new": "我们已收到您的消息，由{department}处理。",
        "state_open": "{department}正在处理。",
        "state_pending": "{department}已回复您，正在等待您的答复。",
        "state_resolved": "{department}已处理完毕。如果问题还在，请在原来的渠道回复，工单会重新打开。",
        "state_closed": "工单已关闭。新的问题请另外写信给我们。",
        "by": "负责部门",
        "received": "收到时间",
        "due": "答复期限",
        "messages": "往来消息",
        "no_messages": "这里没有可以显示的消息。",
        "write": "写信给我们",
        "write_hint": "要补充内容，请在原来的渠道上回复。",
        "missing_title": "没有找到",
        "missing": "这个链接没有对应的工单。请检查链接是否完整，或在原来的渠道上向我们要一个新的链接。",
        "shared": "请不要转发此链接：打开它的人都能看到这里的内容。",
    },
    "en": {
        "chat_title": "Chat",
        "chat_lead": "Use the button at the lower right to chat with us, or leave a message below.",
        "chat_what": "This is the demo page of Sluice's web chat. What you write becomes a ticket, goes to the "
        "department that owns it, and the answer comes back to the same window.",
        "chat_how_title": "Put it on your site",
        "chat_how": "Add this line to a page, and the site's origin to the setting web.chat.origins.",
        "chat_steps_title": "What happens next",
        "chat_step_1": "You write, and get a ticket number with a link to follow it.",
        "chat_step_2": "The bot finds the department; where it is not sure, people sort.",
        "chat_step_3": "A person of that department answers, and the answer appears here.",
        "noscript": "Your browser runs no script. You can still write to us here; reload the page to see answers.",
        "reload": "Reload to see answers",
        "field": "Your message",
        "send": "Send",
        "longest": "{n} characters at most",
        "form_wrong": "Not sent. Write a message of {n} characters at most.",
        "form_fast": "Not sent: too many messages. Wait a little and try again.",
        "other_language": "中文",
        "you": "You",
        "us": "We",
        "bot": "Automatic message",
        "file": "File: {name}",
        "track_title": "Request {number}",
        "track_heading": "Your request {number}",
        "track_steps": "Progress",
        "step_received": "Received",
        "step_working": "In progress",
        "step_resolved": "Resolved",
        "step_closed": "Closed",
        "state_new": "We have your message. {department} will handle it.",
        "state_open": "{department} is working on it.",
        "state_pending": "{department} has answered and is waiting for your reply.",
        "state_resolved": "{department} has resolved it. If it is not settled, reply where you wrote to us, "
        "and it opens again.",
        "state_closed": "The request is closed. Write to us anew for anything else.",
        "by": "Handled by",
        "received": "Received",
        "due": "Next word by",
        "messages": "Messages",
        "no_messages": "There is no message to show here.",
        "write": "Write to us",
        "write_hint": "To add something, reply where you wrote to us.",
        "missing_title": "Not found",
        "missing": "No request belongs to this link. Check that it is complete, or ask us for a new one "
        "where you wrote.",
        "shared": "Keep this link to yourself: whoever opens it can read what is here.",
    },
}

#: a ticket's state in two words, for the chat's head
STATES: Mapping[str, Mapping[str, str]] = {
    "zh": {"new": "已收到", "open": "处理中", "pending": "等待您的答复", "resolved": "已解决", "closed": "已关闭"},
    "en": {
        "new": "received", "open": "in progress", "pending": "waiting for you", "resolved": "resolved",
        "closed": "closed",
    },
}  # fmt: skip


def language_of(request: Request, otherwise: str = "") -> str:
    """The page's language: what the link says, else `otherwise`, else the browser's first that we speak."""
    asked = request.query_params.get("lang", "")
    for given in (asked, otherwise):
        if given in LANGUAGES:
            return given
    for part in request.headers.get("accept-language", "").split(","):
        tag = part.partition(";")[0].strip().lower()[:2]
        if tag in LANGUAGES:
            return tag
    return "zh"


def moment(at: datetime, language: str, now: datetime) -> str:
    """A time in the machine's zone, with its year only where it is not this one."""
    local = at.astimezone()
    other = local.year != now.astimezone().year
    if language == "zh":
        pattern = "yyyy年M月d日 HH:mm" if other else "M月d日 HH:mm"
    else:
        pattern = "MMM d, yyyy, HH:mm" if other else "MMM d, HH:mm"
    return str(format_datetime(local, pattern, tzinfo=local.tzinfo, locale="zh_Hans_CN" if language == "zh" else "en"))
