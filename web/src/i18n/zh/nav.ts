import type { Messages } from '../en'

export const nav: Messages['nav'] = {
  sessions: '会话',
  newSession: '新建会话',
  inbox: '审批',
  waiting: (n) => `${n} 项等待您处理`,
  shared: '共享文件',
  settings: '设置',
  admin: '管理',
}
