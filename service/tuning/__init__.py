"""``python -m service tune`` measures settings on this machine; the service uses the profile that it keeps."""
