"""What there is of one thread, found without a look at all the others."""

from moorage.adapters.folders.folders import Folders
from moorage.adapters.folders.layout import find_place, thread_owner
from moorage.adapters.folders.mounts import is_mount
from moorage.ids import ThreadId, user_place


def is_listed(folders: Folders, thread_id: ThreadId, *, files: bool) -> bool:
    """Whether the thread is one of `folders.mounted()` or, with `files`, of `folders.threads()`.

    Raises InvalidInput for what is no thread id.
    """
    path, owner = folders.path(thread_id), thread_owner(thread_id)
    if files and find_place(path.parents[1], owner, thread_id) is not None:
        return True
    if thread_id == user_place(owner):  # may stand for a shared folder
        return thread_id in folders.mounted()
    return is_mount(path)
