"""Sound: recordings as documents, and what is said in them and in videos.

reader      recordings: their tags         containers  opens files with sound or subtitles; sound for a recogniser
subtitles   files of subtitles to cues     passages    cues to passages that a text encoder reads
"""
