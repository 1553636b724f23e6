import type { Messages } from '../en'

export const auth: Messages['auth'] = {
  logIn: '登录',
  logOut: '退出登录',
  username: '用户名',
  password: '密码',
  passwordAgain: '再次输入密码',
  passwordsDiffer: '两次输入的密码不一致。',
  email: '电子邮箱（可选）',
  register: '注册账号',
  registered: '账号已创建，您已登录。',
  haveAccount: '我已有账号',
  noAccount: '还没有账号？',
  loggedOut: '您已退出登录。重新登录即可继续。',
  setupTitle: '设置此服务器',
  setupIntro: '您是第一位使用者。请创建管理员账号。',
  setupDo: '创建管理员',
  setupNoToken: '此页面需要服务器启动时打印的链接。',
  usernameHint: '小写字母、数字，中间可用 - _ .；2 到 32 个字符',
  passwordHint: '至少 8 个字符',
}
