/** What the server's codes of risky shapes mean; a code that is not here is shown as it is. */
export const risks = {
  deletes_recursively: 'Deletes a folder with everything in it',
  raises_privileges: 'Asks for the rights of the administrator',
  changes_permissions: 'Changes who may read or write, widely',
  force_pushes: 'Overwrites history in a Git repository that others use',
  discards_changes: 'Throws away changes that are not committed',
  overwrites_device: 'Writes straight to a device, which can destroy all its data',
  reads_secrets: 'Touches files that usually hold passwords or keys',
  leaves_in_background: 'Leaves something running after the command ends',
  runs_download: 'Runs what it downloads, unread',
  runs_hidden_code: 'Runs code that is encoded, so that nobody can read it here',
  very_long: 'Is very long: read it to the end',
  outside_workspace: 'Changes a file outside of the session’s folders',
  hidden_file: 'Changes a hidden file (its name, or a folder’s, begins with a dot)',
}
