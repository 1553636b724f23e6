import {
  mdiConsole,
  mdiFileDocumentOutline,
  mdiFileEditOutline,
  mdiFilePlusOutline,
  mdiFolderOutline,
  mdiFormatListChecks,
  mdiMagnify,
  mdiRobotOutline,
  mdiTrashCanOutline,
  mdiWrenchOutline,
} from '@mdi/js'
import type { Messages } from '@/i18n'

const ICONS: Record<string, string> = {
  execute: mdiConsole,
  write_file: mdiFilePlusOutline,
  edit_file: mdiFileEditOutline,
  delete: mdiTrashCanOutline,
  read_file: mdiFileDocumentOutline,
  ls: mdiFolderOutline,
  glob: mdiMagnify,
  grep: mdiMagnify,
  write_todos: mdiFormatListChecks,
  task: mdiRobotOutline,
}

/** The icon of a tool. */
export function iconOf(toolName: string): string {
  return ICONS[toolName] ?? mdiWrenchOutline
}

/** A duration for people: "340 ms", "2.4 s", "3 min 5 s". */
export function duration(ms: number, words: Messages['chat']): string {
  if (ms < 1000) return words.milliseconds(Math.round(ms))
  if (ms < 60_000) return words.seconds((ms / 1000).toFixed(ms < 10_000 ? 1 : 0))
  return words.minutes(Math.floor(ms / 60_000), Math.round((ms % 60_000) / 1000))
}
