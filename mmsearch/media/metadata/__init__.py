"""What is known of pictures and videos beyond their pixels, wherever it is written.

values    dates, names of cameras, texts: single values as cameras and programs write them
xmp       XMP packets, embedded or in files of their own
takeout   the JSON that Google Takeout puts beside each photo
sidecars  all that lies beside a photo or video, to one description

What only pictures have (EXIF, IPTC) is read in `mmsearch.media.image.metadata`.
"""
