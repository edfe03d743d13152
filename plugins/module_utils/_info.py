# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Base of the modules that read objects of one kind."""

from __future__ import annotations

from . import _hidden, _resources
from ._base import KubeModule
from ._errors import ApiError, KubeError, explain_error
from ._jmespath import Expression


class InfoModule(KubeModule):
    """Read objects of KIND, one of the kinds in the table of resources."""

    KIND = ""
    # Of kinds that have no choice of versions.
    API_VERSION = ""
    SELECTION = {
        "name": {"type": "str"},
        "namespace": {"type": "str"},
        "label_selectors": {"type": "list", "elements": "str", "default": []},
        "field_selectors": {"type": "list", "elements": "str", "default": []},
        "query": {"type": "str"},
        **_hidden.HIDDEN_ARGUMENTS,
    }
    ARGUMENTS = {
        **SELECTION,
        "api_version": {
            "type": "str",
            "choices": ["kubevirt.io/v1", "kubevirt.io/v1alpha3"],
            "default": "kubevirt.io/v1",
        },
    }

    def resource(self):
        """Return the Resource of the kind that is read."""
        return _resources.known(self.API_VERSION or self.params["api_version"], self.KIND)

    def run(self):
        # A mistake in it is reported before anything is read.
        query = Expression.of(self.params, "query")
        hidden = _hidden.paths_of(self.params["hidden_fields"])
        resource = self.resource()
        items = [_hidden.hide(item, hidden) for item in self._read(resource)]
        result = {"changed": False, "resources": items}
        if query:
            result["query_result"] = query.search(items, "the objects found")
        return result

    def selection(self, resource):
        """Return the path of the collection that is read, and the label and field selectors."""
        params = self.params
        namespace = params["namespace"] if resource.namespaced else None
        fields = list(params["field_selectors"])
        if params["name"]:
            _resources.check_name("name", params["name"])
            if resource.namespaced:
                namespace = namespace or self.client.default_namespace
            fields.append("metadata.name=%s" % params["name"])
        if namespace:
            _resources.check_name("namespace", namespace)
        return _resources.path(resource, namespace), ",".join(params["label_selectors"]), ",".join(fields)

    def _read(self, resource):
        try:
            return self.client.list(*self.selection(resource))[0]
        except ApiError as exc:
            raise self._unreadable(exc, resource) from exc

    def _unreadable(self, exc, resource):
        """Return the error that says what can't be read."""
        namespace = self.params["namespace"]
        if self.params["name"]:
            namespace = namespace or self.client.default_namespace
        where = "namespace %s" % namespace if namespace else "all namespaces"
        what = "%s in %s" % (resource.kind, where) if resource.namespaced else resource.kind
        if exc.status == 400:
            selectors = [option for option in ("label_selectors", "field_selectors") if self.params[option]]
            what += "".join(" (%s: %s)" % (option, ",".join(self.params[option])) for option in selectors)
        return KubeError("%s: %s" % (what, explain_error(exc)), **exc.facts)
