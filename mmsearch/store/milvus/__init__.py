"""A Milvus server, or milvus-lite in a file, as a store.

address   what an address means, and credentials
server    the connection: the calls that are used, their errors, what a server lacks
rows      documents as rows of a collection, and back
where     filters as expressions of Milvus
store     the contract on top of them
"""
