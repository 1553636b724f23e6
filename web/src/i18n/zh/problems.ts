import type { Messages } from '../en'

export const problems: Messages['problems'] = {
  offline: '无法连接到服务器。',
  wrong_credentials: '用户名或密码错误。',
  too_many_failures: '失败次数过多，请稍后再试。',
  username_taken: '该用户名已被使用。',
  registration_closed: '注册已关闭，请联系管理员。',
  setup_refused: '此链接已失效。请重启服务器获取新链接，或直接登录。',
}
