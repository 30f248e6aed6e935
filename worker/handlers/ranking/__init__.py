"""Jobs of a ranking: a candidate is read (`shard`) and scored (`score`), all of them are put in order (`rank`)."""
