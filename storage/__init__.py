"""What rests: tables, migrations, the queries of each noun, the work queue. Imports `domain` only.

Queries are plain functions of an open `Connection`. Who calls them decides where the transaction begins and ends:
writes run in `Database.write` (the router's), reads in `Database.read` (anybody's).
"""
