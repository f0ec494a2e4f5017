"""Makes the stubs of the protocol at build time, by the builder's own grpcio-tools: rein/v1/*_pb2.py and *_pb2_grpc.py."""
import pathlib

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        import grpc_tools
        from grpc_tools import protoc

        files = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "rein/v1").glob("*.proto"))
        if not files:
            raise SystemExit(f"no protocol in {PROTO}: install from a checkout, pip install ./deploy/python")
        include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        code = protoc.main(["", f"-I{PROTO}", f"-I{include}", f"--python_out={self.build_lib}", f"--pyi_out={self.build_lib}",
                            f"--grpc_python_out={self.build_lib}", *files])
        if code != 0:
            raise SystemExit("protoc failed")
        (pathlib.Path(self.build_lib) / "rein/v1/__init__.py").touch()


setup(cmdclass={"build_py": BuildWithStubs})
