"""Files for people: those of a thread's workspace, and of a user's shared folder."""

from moorage.files.previews import PREVIEW_BYTES, ImageSize, Preview
from moorage.files.service import MAX_FILE_BYTES, Files, RootFiles

__all__ = ["MAX_FILE_BYTES", "PREVIEW_BYTES", "Files", "ImageSize", "Preview", "RootFiles"]
