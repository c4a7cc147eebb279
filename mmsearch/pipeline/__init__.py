"""What an index lacks → read → compute → commit, for everything that is made of files and contents.

plan            files on disk compared with what is known        reading         a file in, inputs of a model out
executor        threads that read, and what else could           compute         inputs in, vectors, tokens or text out
fill            the line itself, and what an artefact must say
new_files       vectors of files that are new or changed         stored_contents     contents, read again where they lie
artefacts       what is made of those: vectors of another encoder, the reranker cache, text in pictures
"""
