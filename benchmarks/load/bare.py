"""What `benchmarks/api.py` measures the service by: a FastAPI route that asks one indexed query and says what it found."""

import os

from fastapi import FastAPI
from sqlalchemy import create_engine, text

ROW = text("SELECT id, state, version FROM ranking WHERE id = :id")

app = FastAPI()
engine = create_engine(os.environ["BARE_DATABASE_URL"])


@app.get("/rankings/{id}")
def get_ranking(id: str) -> dict[str, str | int]:
    with engine.connect() as connection:
        return dict(connection.execute(ROW, {"id": id}).mappings().one())
