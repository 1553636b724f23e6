import type { Messages } from '../en'

export const risks: Messages['risks'] = {
  deletes_recursively: '会删除整个文件夹及其全部内容',
  raises_privileges: '要求管理员权限',
  changes_permissions: '大范围更改读写权限',
  force_pushes: '会覆盖他人共用的 Git 仓库历史',
  discards_changes: '会丢弃尚未提交的修改',
  overwrites_device: '直接写入设备，可能毁掉其中的全部数据',
  reads_secrets: '涉及通常存放密码或密钥的文件',
  leaves_in_background: '命令结束后仍会有进程在后台运行',
  runs_download: '未经查看就运行下载的内容',
  runs_hidden_code: '运行经过编码的代码，在此无法看到其真实内容',
  very_long: '内容很长：请完整阅读',
  outside_workspace: '修改会话文件夹之外的文件',
  hidden_file: '修改隐藏文件（文件名或其所在文件夹以点开头）',
}
