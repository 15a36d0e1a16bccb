"""The official `openai` client, unchanged, against `longreward serve`.

    python tests/peers/openai_client.py --longreward target/release/longreward [--model smollm2] [--clients 256]

Starts the server on a free port, goes through what the client offers, then asks from many clients at once and compares with
the answers of one client. Prints a line per check and ends with code 1 at the first that fails. Needs openai (3.54.0); the model is fetched or in the cache.
"""

import argparse
import asyncio
import math
import time
import typing

import openai
import pydantic
from server import passed, serving

MESSAGES = [{"role": "user", "content": "Name three rivers."}]


def fails(kind: type, call) -> openai.APIStatusError:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def chat(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[1:] == ["gpt-4"], names
    assert client.models.retrieve("gpt-4").id == "gpt-4"
    passed("models", ", ".join(names))

    fields = dict(model="gpt-4", messages=MESSAGES, max_tokens=24, seed=7, n=2, logprobs=True, top_logprobs=20)
    whole = client.chat.completions.create(**fields)
    assert len(whole.choices) == 2 and whole.usage.completion_tokens <= 48
    for choice in whole.choices:
        assert choice.finish_reason in ("stop", "length")
        assert all(len(token.top_logprobs) == 20 for token in choice.logprobs.content)
        assert b"".join(bytes(token.bytes) for token in choice.logprobs.content).decode("utf-8", "replace") == choice.message.content
        likeliest = [token.top_logprobs[0].logprob for token in choice.logprobs.content]
        assert all(token.logprob <= best for token, best in zip(choice.logprobs.content, likeliest))
    again = client.chat.completions.create(**fields)
    assert [c.message for c in again.choices] == [c.message for c in whole.choices]
    passed("chat: n, seed, logprobs", repr(whole.choices[0].message.content[:40]))

    texts, usage = ["", ""], None
    for chunk in client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
        usage = chunk.usage or usage
    assert texts == [c.message.content for c in whole.choices] and usage == whole.usage.model_copy(
        update={"prompt_tokens_details": usage.prompt_tokens_details}
    )
    passed("chat: the stream is the answer", f"{usage.total_tokens} tokens")

    text = client.chat.completions.create(**fields | {"n": 1, "temperature": 0}).choices[0].message.content
    stop = text[8:11]
    cut = client.chat.completions.create(**fields | {"n": 1, "temperature": 0, "stop": [stop]}).choices[0]
    assert cut.message.content == text[: text.find(stop)] and cut.finish_reason == "stop", (cut, text)
    passed("chat: stop", repr(stop))

    parts = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    client.chat.completions.create(model="gpt-4", messages=parts, max_completion_tokens=4)
    biased = client.chat.completions.create(model="gpt-4", messages=MESSAGES, max_tokens=3, temperature=0, logit_bias={"260": 100})
    assert len(set(biased.choices[0].message.content.split())) <= 1
    passed("chat: parts, max_completion_tokens, logit_bias", repr(biased.choices[0].message.content))

    a, b = (client.chat.completions.create(model="gpt-4", messages=MESSAGES, max_tokens=30).choices[0].message.content for _ in range(2))
    assert a != b
    passed("chat: without a seed answers differ")


def completions(client: openai.OpenAI) -> None:
    fields = dict(model="gpt-4", max_tokens=4, temperature=0, logprobs=5, echo=True)
    text = "The capital of France is"
    first = client.completions.create(prompt=text, **fields).choices[0]
    assert first.text.startswith(text) and first.logprobs.token_logprobs[0] is None
    assert len(first.logprobs.tokens) == len(first.logprobs.text_offset) == len(first.logprobs.top_logprobs)
    assert "".join(first.logprobs.tokens) == first.text
    assert [first.text[i:][: len(t)] for i, t in zip(first.logprobs.text_offset, first.logprobs.tokens)] == first.logprobs.tokens
    passed("completions: echo and logprobs", repr(first.text))

    # What lm-eval's local-completions sends for a log-likelihood.
    request = dict(model="gpt-4", prompt=[[504, 3575, 282], [504, 3575, 282, 4649, 314]], temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    answer = client.completions.create(**request)
    for choice, prompt in zip(answer.choices, request["prompt"]):
        logprobs = choice.logprobs.token_logprobs[1:-1]
        greedy = [max(top.values()) == own for own, top in zip(logprobs, choice.logprobs.top_logprobs[1:-1])]
        assert len(logprobs) == len(prompt) - 1 and all(math.isfinite(x) and x < 0 for x in logprobs), choice
    passed("completions: token ids, max_tokens 1", f"sum {sum(logprobs):.3f}, greedy {greedy}")
    none = client.completions.create(**request | {"max_tokens": 0})
    assert none.choices[1].logprobs.token_logprobs == answer.choices[1].logprobs.token_logprobs[:-1]
    passed("completions: max_tokens 0")

    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(prompt=text, **fields, stream=True) if chunk.choices)
    assert streamed == first.text
    passed("completions: the stream is the answer")


def forms(client: openai.OpenAI) -> None:
    """`response_format` as a dictionary and by the client's own `parse`, and the extensions of other servers."""
    fields = dict(model="gpt-4", messages=MESSAGES, max_tokens=120, seed=3)

    class River(pydantic.BaseModel):
        name: typing.Annotated[str, pydantic.Field(max_length=20)]
        length_km: typing.Annotated[int, pydantic.Field(ge=1, le=9999)]
        continent: typing.Literal["Africa", "Asia", "Europe"]

    for seed in range(5):
        parsed = client.chat.completions.parse(**fields | {"seed": seed}, response_format=River).choices[0].message.parsed
        assert isinstance(parsed, River)
    passed("response_format: a class, by parse", repr(parsed))
    schema = {"name": "answer", "schema": River.model_json_schema()}
    asked = fields | {"response_format": {"type": "json_schema", "json_schema": schema}}
    text = client.chat.completions.create(**asked).choices[0].message.content
    streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**asked, stream=True) if c.choices)
    assert streamed == text and River.model_validate_json(text)
    passed("response_format: json_schema, streamed", text)
    text = client.chat.completions.create(**fields | {"temperature": 0}, response_format={"type": "json_object"}).choices[0].message.content
    assert text.startswith("{")
    passed("response_format: json_object", repr(text[:60]))
    choices = ["the Nile", "the Danube", "the Mekong"]
    for extra in ({"guided_choice": choices}, {"structured_outputs": {"choice": choices}}):
        text = client.chat.completions.create(**fields, extra_body=extra).choices[0].message.content
        assert text in choices, text
    passed("guided_choice, structured_outputs", repr(text))
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "thing"}}}
    error = fails(openai.BadRequestError, lambda: client.chat.completions.create(**fields, response_format=bad))
    assert error.param == "response_format"
    passed("response_format: refused", error.message)


def functions(client: openai.OpenAI) -> None:
    """A function that the client names is called, by schema or as the client makes one of a class."""

    class Rank(pydantic.BaseModel):
        best: typing.Literal["a", "b"]

    tool = openai.pydantic_function_tool(Rank, name="rank", description="Says which is best.")
    fields = dict(model="gpt-4", messages=MESSAGES, max_tokens=60, seed=3, tools=[tool])
    named = {"type": "function", "function": {"name": "rank"}}
    for choice in (named, "required"):
        told = client.chat.completions.parse(**fields, tool_choice=choice).choices[0].message.tool_calls[0].function
        assert told.name == "rank" and isinstance(told.parsed_arguments, Rank)
    with client.chat.completions.stream(**fields, tool_choice=named) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert streamed.arguments == told.arguments
    error = fails(openai.BadRequestError, lambda: client.chat.completions.create(**fields))
    assert error.param == "tools"
    passed("functions: named, required, streamed", told.arguments)


def errors(client: openai.OpenAI) -> None:
    error = fails(openai.BadRequestError, lambda: client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "word " * 9000}]))
    assert "maximum context length" in str(error) and error.code == "context_length_exceeded"
    error = fails(openai.BadRequestError, lambda: client.chat.completions.create(model="gpt-4", messages=MESSAGES, temperature=9))
    assert error.param == "temperature" and error.type == "invalid_request_error"
    error = fails(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-5", messages=MESSAGES))
    assert error.code == "model_not_found"
    passed("errors: overflow, field, model", error.message)


def embeddings(client: openai.OpenAI, embedder: str | None) -> None:
    if embedder is None:
        error = fails(openai.APIStatusError, lambda: client.with_options(max_retries=0).embeddings.create(model="gpt-4", input="x"))
        passed("embeddings: refused", error.message)
        return
    texts = ["A cat sleeps.", "A kitten naps.", "The bank raised its rates."]
    data = client.embeddings.create(model=embedder, input=texts).data  # the client asks for base64
    numbers = client.embeddings.create(model=embedder, input=texts, encoding_format="float").data
    pairs = [(a, b) for x, y in zip(data, numbers) for a, b in zip(x.embedding, y.embedding)]
    assert len(pairs) == 3 * len(data[0].embedding) and all(abs(a - b) < 1e-7 for a, b in pairs)
    near, far = (sum(a * b for a, b in zip(data[0].embedding, data[k].embedding)) for k in (1, 2))
    assert near > far and abs(sum(x * x for x in data[0].embedding) - 1) < 1e-5
    passed("embeddings", f"{len(data[0].embedding)} numbers, cosines {near:.3f} and {far:.3f}")


async def crowd(address: str, clients: int, tokens: int) -> None:
    """Many clients at once get what one client gets, and none is lost."""

    def fields(k: int) -> dict:
        # An eighth of the questions is asked by one client alone too.
        return dict(model="gpt-4", messages=[{"role": "user", "content": f"Tell me {k} things about rivers."}], max_tokens=tokens, seed=k)

    async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=600) as client:

        async def ask(k: int) -> str:
            if k % 2:
                stream = await client.chat.completions.create(**fields(k), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return (await client.chat.completions.create(**fields(k))).choices[0].message.content

        alone = {k: await ask(k) for k in range(0, clients, 16)}
        start = time.monotonic()
        together = await asyncio.gather(*(ask(k) for k in range(clients)))
        seconds = time.monotonic() - start
    assert all(together[k] == text for k, text in alone.items())
    passed(f"{clients} clients at once", f"{seconds:.1f} s, {len(alone)} of them asked alone before")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--longreward", required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--embedder")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    more = ["--embedder", options.embedder] if options.embedder else []
    with serving(options.longreward, options.model, "--alias", "gpt-4", *more) as (address, _):
        print(f"openai {openai.__version__}, {address}")
        client = openai.OpenAI(base_url=address, api_key="none", timeout=120)
        chat(client)
        completions(client)
        forms(client)
        functions(client)
        errors(client)
        embeddings(client, options.embedder)
        asyncio.run(crowd(address, options.clients, options.tokens))
    passed("ended politely")


if __name__ == "__main__":
    main()
