"""How values of a JSON Schema are drawn: from keywords to samplers.

    validation   what jsonschema says: the authority
    conjunction  references and allOf undone: the schemas that a value must satisfy
    compiler     those schemas to a graph of nodes, once per schema
    nodes        the graph; how small a value can be, and what cannot be drawn
    choices      unions, enums, anything
    containers   objects and arrays
    numbers      integers and numbers
    strings      strings with lengths and formats
    regex        regular expressions to syntax trees
    patterns     texts that match them
    listing      every value, where there are finitely many

`ors_gym.spaces.json_schema` is the way in.
"""
