#!/usr/bin/env python3
"""Shows that each checker of this folder finds what it is there for."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROTO = """syntax = "proto3";
// A greeting.
message Hello {
  // To whom.
  string name = 1;
  // One of two.
  oneof kind {
    // Loud.
    bool loud = 2;
  }
}
// How it ends.
enum End {
  // Not known.
  END_UNSPECIFIED = 0;
}
// Greets.
service Greeter {
  // Says it.
  rpc Greet(Hello) returns (stream Hello);
}
"""


class CheckersTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        for name in ("proto", "tests/lint", "common"):
            (self.root / name).mkdir(parents=True)

    def tearDown(self):
        self.folder.cleanup()

    def check(self, checker, *flags):
        run = subprocess.run([sys.executable, HERE / checker, self.root, *flags], capture_output=True, text=True)
        return run.returncode, run.stdout

    def protocol(self, text, *flags):
        (self.root / "proto/hello.proto").write_text(text)
        return self.check("check_protos.py", *flags)

    def test_a_commented_protocol_holds(self):
        self.assertEqual(self.protocol(PROTO, "--write")[0], 0)
        self.assertEqual(self.protocol(PROTO), (0, "4 elements of the protocol hold\n"))

    def test_a_missing_comment_is_found(self):
        for comment in ("// A greeting.", "// To whom.", "// Loud.", "// Not known.", "// Greets.", "// Says it."):
            code, text = self.protocol(PROTO.replace(comment, ""), "--write")
            self.assertEqual(code, 1, comment)
            self.assertIn("has no comment above it", text)

    def test_a_new_element_must_be_written_down(self):
        self.protocol(PROTO, "--write")
        code, text = self.protocol(PROTO.replace("  // One of", "  // More.\n  int32 more = 3;\n  // One of"))
        self.assertEqual(code, 1)
        self.assertIn("'Hello.more = 3 int32' is new", text)

    def test_a_changed_element_is_found(self):
        self.protocol(PROTO, "--write")
        for before, after in (("string name", "bytes name"), ("name = 1", "name = 4"), ("(stream Hello)", "(Hello)")):
            code, text = self.protocol(PROTO.replace(before, after), "--write")
            self.assertEqual(code, 1, before)
            self.assertIn("was published and has changed or gone", text)

    def test_a_reserved_element_may_go(self):
        self.protocol(PROTO, "--write")
        gone = PROTO.replace("  // To whom.\n  string name = 1;", '  reserved 1, "name";')
        self.assertEqual(self.protocol(gone, "--write")[0], 0)

    def test_long_files_and_functions_are_found(self):
        (self.root / "common/long.h").write_text("//\n" * 251)
        (self.root / "common/deep.cc").write_text("void Deep() {\n" + "  Work();\n" * 90 + "}\n")
        code, text = self.check("check_sizes.py")
        self.assertEqual(code, 1)
        self.assertIn("common/long.h: 251 lines, at most 250", text)
        self.assertIn("common/deep.cc:1: a function of 91 lines", text)


if __name__ == "__main__":
    unittest.main()
