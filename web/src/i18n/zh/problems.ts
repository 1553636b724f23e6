import type { Messages } from '../en'

export const problems: Messages['problems'] = {
  offline: '无法连接到服务器。',
  wrong_credentials: '用户名或密码错误。',
  too_many_failures: '失败次数过多，请稍后再试。',
  username_taken: '该用户名已被使用。',
  registration_closed: '注册已关闭，请联系管理员。',
  setup_refused: '此链接已失效。请重启服务器获取新链接，或直接登录。',
  thread_not_found: '会话不存在。',
  thread_access_denied: '这不是您的会话。',
  session_closed: '会话已关闭，不再接受消息。',
  session_expired: '会话已过期，不再接受消息。',
  session_quota: '活动会话数量已达上限，请先关闭或删除一个。',
  queue_full: '排队的消息过多，请稍后重新发送。',
  approval_pending: '有步骤等待您审批：请先处理，或让新消息拒绝它。',
  thread_busy: '会话正在运行，请等待或先停止。',
}
