"""Which fields of settings are read, and by whom: found in the source by following types, without running it.

Of types only classes of settings count, as a set of their names: `tuple[A, ...] | None` is {A}, and `A | B` {A, B}.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

Source = Mapping[str, ast.Module]
Types = frozenset[str]
Function = ast.FunctionDef | ast.AsyncFunctionDef
NOTHING: Types = frozenset()
# What gives the classes of settings that it is of, or that it is given.
_OF_THE_SAME = frozenset(
    (
        "values",
        "items",
        "get",
        "model_copy",
        "replace",
        "sorted",
        "list",
        "tuple",
        "reversed",
        "enumerate",
        "zip",
    )
)


@dataclass(frozen=True)
class Model:
    """A class of settings.

    Attributes:
        fields: its fields, each with its type as it is written.
        properties: what is computed of them.
    """

    fields: dict[str, ast.expr]
    properties: dict[str, ast.FunctionDef]

    def type_of(self, name: str) -> ast.expr | None:
        """The type of a field or property as it is written; None where it has none of them."""
        return self.fields[name] if name in self.fields else self.properties[name].returns

    def __contains__(self, name: str) -> bool:
        return name in self.fields or name in self.properties


def parse(sources: Mapping[str, str]) -> Source:
    """Modules by name; one that never says "settings" reads none, and is left out."""
    return {name: _parsed(text) for name, text in sources.items() if "ettings" in text}


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def models(module: ast.Module) -> dict[str, Model]:
    """The classes of a module whose names end in Settings."""
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    return {node.name: _model(node) for node in classes if node.name.endswith("Settings")}


def _model(node: ast.ClassDef) -> Model:
    fields = {
        item.target.id: item.annotation
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    return Model(fields, {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)})


@dataclass
class Reader:
    """Follows types through modules and notes what is read.

    Attributes:
        known: the classes of settings by name.
        found: pairs of a class and a field or property of it that is read.
    """

    known: Mapping[str, Model]
    found: set[tuple[str, str]] = field(default_factory=set)
    _returned: dict[str, Types] = field(default_factory=dict)
    _attributes: dict[str, Types] = field(default_factory=dict)

    def read(self, sources: Source) -> None:
        """Notes what these modules read, and what the properties read that they do."""
        for tree in sources.values():
            self._declare(tree)
        for tree in sources.values():
            self._scope(tree.body, {})
        followed: set[tuple[str, str]] = set()
        while new := self.found - followed:
            followed |= new
            for owner, name in new:
                if name in self.known[owner].properties:
                    self._scope(self.known[owner].properties[name].body, {"self": frozenset({owner})})

    def unread(self) -> list[str]:
        """`Class.field` of every field that nobody reads."""
        every = [(owner, name) for owner, model in self.known.items() for name in model.fields]
        return [f"{owner}.{name}" for owner, name in every if (owner, name) not in self.found]

    def _declare(self, tree: ast.Module) -> None:
        """Notes what functions return and what attributes are, by their names."""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._returned[node.name] = self._written(node.returns)
                self._kept_arguments(node)
            elif isinstance(node, ast.AnnAssign) and (kinds := self._written(node.annotation)):
                target = node.target
                self._attributes[
                    target.attr if isinstance(target, ast.Attribute) else ast.unparse(target)
                ] = kinds

    def _kept_arguments(self, node: Function) -> None:
        """`self._settings = settings` gives the attribute the argument's type."""
        arguments = self._arguments(node)
        for item in ast.walk(node):
            if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Attribute):
                kinds = self._type(item.value, arguments)
                if kinds:
                    self._attributes[item.targets[0].attr] = kinds

    def _arguments(self, node: Function) -> dict[str, Types]:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return {each.arg: self._written(each.annotation) for each in arguments}

    def _written(self, annotation: ast.expr | None) -> Types:
        """The classes of settings that an annotation names."""
        words = re.findall(r"\w+", ast.unparse(annotation)) if annotation is not None else ()
        return frozenset(word for word in words if word in self.known)

    def _scope(self, body: Iterable[ast.AST], names: dict[str, Types]) -> None:
        """Reads nodes in order, so that a name is bound before it is used."""
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._scope(node.body, {**names, **self._arguments(node)})
                continue
            self._bind(node, names)
            if isinstance(node, ast.Attribute | ast.Call):
                self._type(node, names)
            children = list(ast.iter_child_nodes(node))
            # A comprehension's loops come before what it makes.
            self._scope(sorted(children, key=lambda each: not isinstance(each, ast.comprehension)), names)

    def _bind(self, node: ast.AST, names: dict[str, Types]) -> None:
        if isinstance(node, ast.Assign):
            self._name(node.targets[0], node.value, names)
        elif isinstance(node, ast.NamedExpr):
            self._name(node.target, node.value, names)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            self._name(node.target, node.iter, names)
        elif isinstance(node, ast.AnnAssign):
            names[ast.unparse(node.target)] = self._written(node.annotation)

    def _name(self, target: ast.expr, value: ast.expr, names: dict[str, Types]) -> None:
        both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        parts = zip(target.elts, value.elts, strict=False) if both else [(target, value)]
        for left, right in parts:
            kinds = self._type(right, names)
            names.update({name.id: kinds for name in ast.walk(left) if isinstance(name, ast.Name)})

    def _type(self, node: ast.expr, names: Mapping[str, Types]) -> Types:
        """The classes that an expression may be of; notes what it reads."""
        if isinstance(node, ast.Name):
            return names.get(node.id, NOTHING)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, names)
        if isinstance(node, ast.Call):
            return self._call(node, names)
        parts = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
        if isinstance(
            node, ast.Subscript | ast.Starred | ast.Await | ast.BoolOp | ast.IfExp | ast.List | ast.Tuple
        ):
            return NOTHING.union(*(self._type(each, names) for each in parts))
        return NOTHING

    def _attribute(self, node: ast.Attribute, names: Mapping[str, Types]) -> Types:
        owners = self._type(node.value, names)
        having = [owner for owner in owners if node.attr in self.known[owner]]
        self.found |= {(owner, node.attr) for owner in having}
        if having:
            return NOTHING.union(*(self._written(self.known[owner].type_of(node.attr)) for owner in having))
        return owners if node.attr in _OF_THE_SAME else self._attributes.get(node.attr, NOTHING)

    def _call(self, node: ast.Call, names: Mapping[str, Types]) -> Types:
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "model_dump":
                owners = self._type(node.func.value, names)
                self.found |= {(owner, name) for owner in owners for name in self.known[owner].fields}
            return self._type(node.func, names) or self._returned.get(node.func.attr, NOTHING)
        name = ast.unparse(node.func)
        if name in self.known:
            return frozenset({name})
        if name in _OF_THE_SAME:
            return NOTHING.union(*(self._type(each, names) for each in node.args))
        return self._returned.get(name, NOTHING)
