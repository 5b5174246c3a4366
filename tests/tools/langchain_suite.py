"""LangChain's integration tests of chat models against a server.

By hand, not in CI:

    pip install langchain-tests langchain-openai
    hyperion serve smollm2 --device cpu
    HYPERION_URL=http://127.0.0.1:8080 pytest -ra --asyncio-mode=auto \\
        -o asyncio_default_test_loop_scope=session tests/tools/langchain_suite.py

LangChain keeps one HTTP client for all event loops, so that all tests need the same one. What fails, and why, is in
docs/serving.md.
"""

import os

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestHyperion(ChatModelIntegrationTests):
    """Flags that are not set here are LangChain's own guesses, from what `ChatOpenAI` has."""

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "base_url": os.environ.get("HYPERION_URL", "http://127.0.0.1:8080") + "/v1",
            "api_key": "none",
            "model": "any",
            "temperature": 0,
            "max_tokens": 160,
            # Of itself `ChatOpenAI` asks for it at OpenAI's own address only.
            "stream_usage": True,
            "timeout": 300,
            "max_retries": 0,
        }

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return False

    @property
    def supports_image_inputs(self):
        return False
