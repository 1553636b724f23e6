import type { Messages } from '../en'

export const inbox: Messages['inbox'] = {
  title: '审批',
  waiting: '待处理',
  history: '历史记录',
  newest: '最新在前',
  oldest: '最早在前',
  order: '排序',
  emptyTitle: '没有待您处理的事项',
  emptyText: '智能体要运行命令或修改文件时，会在这里请求您批准。',
  historyEmpty: '还没有处理过任何审批。',
  historyNone: '没有此状态的审批。',
  status: '状态',
  all: '全部',
  statuses: {
    approved: '已批准',
    edited: '修改后批准',
    rejected: '已拒绝',
    responded: '已代答',
    expired: '已过期',
    cancelled: '已取消',
    superseded: '已重新询问',
  },
  untitled: '未命名的会话',
  openSession: (title) => `打开会话：${title}`,
  count: (n) => `${n} 项待批`,
  stale: '此列表可能不是最新的。',
}
