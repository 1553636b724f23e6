"""What the UI says, in both of its languages: the words by which journeys that are made in both find their way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    locale: str
    user_name: str
    password: str
    log_in: str
    register: str
    starter: str
    new_session: str
    message: str
    approve: str
    edit: str
    approve_edited: str
    edited_file: str
    reject: str
    remember: str
    approve_and_remember: str
    approved: str
    edited: str
    rejected: str
    command: str
    open_panel: str
    plan: str
    plan_done: str
    files: str
    terminal: str
    approvals: str
    settings: str
    scripted: str


ENGLISH = Words(
    locale="en-US",
    user_name="User name",
    password="Password",
    log_in="Log in",
    register="Create an account",
    starter="Show me what you can do",
    new_session="New session",
    message="Message",
    approve="Approve",
    edit="Edit",
    approve_edited="Approve as edited",
    edited_file="What your edit would change in the file as it is now",
    reject="Reject",
    remember="Remember…",
    approve_and_remember="Approve and remember",
    approved="Approved",
    edited="Edited and approved",
    rejected="Rejected",
    command="command",
    open_panel="Show plan, files and more",
    plan="Plan",
    plan_done="3 of 3 done",
    files="Files",
    terminal="Terminal",
    approvals="Approvals",
    settings="Settings",
    scripted="No language model is connected",
)

CHINESE = Words(
    locale="zh-CN",
    user_name="用户名",
    password="密码",
    log_in="登录",
    register="注册账号",
    starter="展示一下你的能力",
    new_session="新建会话",
    message="消息",
    approve="批准",
    edit="编辑",
    approve_edited="按修改后的内容批准",
    edited_file="按您的修改，与文件当前内容相比的改动",
    reject="拒绝",
    remember="记住…",
    approve_and_remember="批准并记住",
    approved="已批准",
    edited="修改后批准",
    rejected="已拒绝",
    command="command",
    open_panel="显示计划、文件等",
    plan="计划",
    plan_done="已完成 3/3",
    files="文件",
    terminal="终端",
    approvals="审批",
    settings="设置",
    scripted="尚未连接语言模型",
)
