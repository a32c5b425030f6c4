"""How values of a JSON Schema are drawn: from keywords to samplers.

    compiler     a schema to a graph of nodes, once; which file below draws what
    conjunction  references and allOf undone: the schemas that a value must satisfy
    nodes        the graph: what a node is, what a draw is, sizes, lists of all values
    enums        enum, const, booleans, null
    unions       anyOf, oneOf, if, lists of types, anything, decimals
    containers   objects and arrays
    numbers      integers and numbers
    strings      strings with lengths, formats and patterns
    regex        regular expressions, and texts that match them

`ors_gym.spaces.json_schema` is the way in. It also asks jsonschema, which has the last
word on what is valid.
"""
