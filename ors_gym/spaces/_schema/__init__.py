"""How values of a JSON Schema are drawn: from keywords to samplers.

    validation   what jsonschema says: the authority
    conjunction  references and allOf undone: the schemas that a value must satisfy
    compiler     those schemas to a graph of nodes, once per schema
    nodes        the graph: what a node is, what a draw is
    sizes        how small a value can be, and what has none
    exclusion    whether the branches of a oneOf exclude each other
    leaves       the bodies of one type, from all keywords that apply
    choices      unions, enums, anything
    containers   objects and arrays
    numbers      integers and numbers
    strings      strings with lengths and formats
    regex        regular expressions to the trees of regex_tree
    patterns     texts that match them
    listing      every value, where there are finitely many

`ors_gym.spaces.json_schema` is the way in.
"""
