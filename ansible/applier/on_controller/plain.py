"""Makes the program's modules fit for old interpreters: what says types to a reader only is taken out."""

import ast


def plain(text: str) -> str:
    """A module without annotations and comments, as Python 3.6 reads it.

    A host's interpreter would evaluate annotations that are written for the newest; fields of a class need one, of
    whatever type.
    """
    return ast.unparse(ast.fix_missing_locations(_Plain().visit(ast.parse(text)))) + "\n"


class _Plain(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        every = node.args
        for argument in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg):
            if argument is not None:
                argument.annotation = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for field in node.body:
            if isinstance(field, ast.AnnAssign):
                field.annotation = ast.Constant(value=None)
        node.body = [each if isinstance(each, ast.AnnAssign) else self.visit(each) for each in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return ast.Assign(targets=[node.target], value=node.value) if node.value else ast.Pass()
