# An image whose `make run` learns the stream of digits, on the CPU:
#
#     docker build -t lifelong .
#     docker run --rm -v "$PWD/runs:/home/learner/lifelong/runs" lifelong
#
# Other commands: docker run --rm lifelong .venv/bin/lifelong methods
FROM python:3.11.13-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 learner

USER learner
WORKDIR /home/learner/lifelong

# What decides the installed packages comes first: a change of the code does not install them again.
COPY --chown=learner pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY --chown=learner lifelong lifelong

# The same rule as outside: the first `make` creates .venv. Wheels for the CPU need a tenth of the space of those for CUDA.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
RUN make .venv/.installed && mkdir runs

CMD ["make", "run"]
