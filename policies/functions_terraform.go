package policies

import (
	"errors"
	"math/big"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Here are the functions that Terraform has and cty's standard library has
// not, or has with another meaning.

// textFunc is a test of one string against another.
func textFunc(second string, test func(s, t string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "string", Type: cty.String}, {Name: second, Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []value, _ cty.Type) (value, error) {
			return cty.BoolVal(test(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

// everyFunc is alltrue and, with the sense turned round, anytrue.
func everyFunc(all bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.Bool)}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []value, _ cty.Type) (value, error) {
			for it := args[0].ElementIterator(); it.Next(); {
				_, v := it.Element()
				if !v.IsKnown() {
					return cty.UnknownVal(cty.Bool), nil
				}
				if (!v.IsNull() && v.True()) != all {
					return cty.BoolVal(!all), nil
				}
			}
			return cty.BoolVal(all), nil
		},
	})
}

// coalesceFunc returns the first argument that is neither null nor "".
var coalesceFunc = function.New(&function.Spec{
	VarParam: &function.Parameter{Name: "values", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true},
	Type: func(args []value) (cty.Type, error) {
		types := make([]cty.Type, len(args))
		for i, v := range args {
			types[i] = v.Type()
		}
		ty, _ := convert.UnifyUnsafe(types)
		if ty == cty.NilType {
			return cty.NilType, errors.New("all arguments must be of one type")
		}
		return ty, nil
	},
	Impl: func(args []value, ty cty.Type) (value, error) {
		for i, v := range args {
			v, err := convert.Convert(v, ty)
			if err != nil {
				return cty.NilVal, function.NewArgError(i, err)
			}
			if v.IsNull() || v.RawEquals(cty.StringVal("")) {
				continue
			}
			return v, nil
		}
		return cty.NilVal, errors.New("every argument is null or empty")
	},
})

// lengthFunc counts elements, or the characters of a string.
var lengthFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowDynamicType: true, AllowUnknown: true}},
	Type: func(args []value) (cty.Type, error) {
		ty := args[0].Type()
		if ty == cty.String || ty == cty.DynamicPseudoType || ty.IsTupleType() || ty.IsObjectType() || ty.IsCollectionType() {
			return cty.Number, nil
		}
		return cty.NilType, function.NewArgErrorf(0, "a list, map, set or string is needed")
	},
	Impl: func(args []value, _ cty.Type) (value, error) {
		switch ty := args[0].Type(); {
		case ty == cty.DynamicPseudoType:
			return cty.UnknownVal(cty.Number), nil
		case ty == cty.String:
			return stdlib.Strlen(args[0])
		case ty.IsTupleType():
			return cty.NumberIntVal(int64(ty.Length())), nil
		case ty.IsObjectType():
			return cty.NumberIntVal(int64(len(ty.AttributeTypes()))), nil
		}
		return args[0].Length(), nil
	},
})

// lookupFunc is lookup(map, key) or lookup(map, key, default).
var lookupFunc = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "map", Type: cty.DynamicPseudoType}, {Name: "key", Type: cty.String}},
	VarParam: &function.Parameter{Name: "default", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true},
	Type: func(args []value) (cty.Type, error) {
		v, err := lookup(args)
		return v.Type(), err
	},
	Impl: func(args []value, _ cty.Type) (value, error) { return lookup(args) },
})

func lookup(args []value) (value, error) {
	ty := args[0].Type()
	if !ty.IsMapType() && !ty.IsObjectType() {
		return cty.DynamicVal, function.NewArgErrorf(0, "a map is needed")
	}
	if len(args) > 3 {
		return cty.DynamicVal, function.NewArgErrorf(3, "lookup takes two or three arguments")
	}
	if !args[0].IsWhollyKnown() || !args[1].IsKnown() {
		return cty.DynamicVal, nil
	}
	key := args[1].AsString()
	if v, ok := args[0].AsValueMap()[key]; ok {
		return v, nil
	}
	if len(args) < 3 {
		return cty.DynamicVal, function.NewArgErrorf(1, "the map has no key %q, and there is no default", key)
	}
	if ty.IsMapType() {
		v, err := convert.Convert(args[2], ty.ElementType())
		if err != nil {
			return cty.DynamicVal, function.NewArgErrorf(2, "the default must be of the type of the map's values: %s", err)
		}
		return v, nil
	}
	return args[2], nil
}

// indexFunc returns the position of a value in a list.
var indexFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}, {Name: "value", Type: cty.DynamicPseudoType}},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []value, _ cty.Type) (value, error) {
		if ty := args[0].Type(); !ty.IsListType() && !ty.IsTupleType() {
			return cty.NilVal, function.NewArgErrorf(0, "a list is needed")
		}
		i := int64(0)
		for it := args[0].ElementIterator(); it.Next(); i++ {
			_, v := it.Element()
			eq, err := stdlib.Equal(v, args[1])
			if err != nil {
				return cty.NilVal, err
			}
			if !eq.IsKnown() {
				return cty.UnknownVal(cty.Number), nil
			}
			if eq.True() {
				return cty.NumberIntVal(i), nil
			}
		}
		return cty.NilVal, errors.New("the list does not hold the value")
	},
})

// oneFunc returns the only element of a list, or null if there is none.
var oneFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
	Type: func(args []value) (cty.Type, error) {
		v, err := one(args[0])
		return v.Type(), err
	},
	Impl: func(args []value, ty cty.Type) (value, error) {
		v, err := one(args[0])
		if err != nil {
			return v, err
		}
		return convert.Convert(v, ty)
	},
})

func one(list value) (value, error) {
	ty := list.Type()
	if !ty.IsListType() && !ty.IsSetType() && !ty.IsTupleType() {
		return cty.DynamicVal, function.NewArgErrorf(0, "a list or set is needed")
	}
	if !list.IsKnown() {
		return cty.DynamicVal, nil
	}
	switch list.LengthInt() {
	case 0:
		if ty.IsTupleType() {
			return cty.NullVal(cty.DynamicPseudoType), nil
		}
		return cty.NullVal(ty.ElementType()), nil
	case 1:
		it := list.ElementIterator()
		it.Next()
		_, v := it.Element()
		return v, nil
	}
	return cty.DynamicVal, function.NewArgErrorf(0, "there is more than one element")
}

// sumFunc adds up the numbers of a list.
var sumFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []value, _ cty.Type) (value, error) {
		if !args[0].CanIterateElements() {
			return cty.NilVal, function.NewArgErrorf(0, "a list or set of numbers is needed")
		}
		if args[0].LengthInt() == 0 {
			return cty.NilVal, function.NewArgErrorf(0, "the list is empty")
		}
		total := new(big.Float)
		for it := args[0].ElementIterator(); it.Next(); {
			_, v := it.Element()
			n, err := convert.Convert(v, cty.Number)
			if err != nil || n.IsNull() {
				return cty.NilVal, function.NewArgErrorf(0, "every element must be a number")
			}
			if !n.IsKnown() {
				return cty.UnknownVal(cty.Number), nil
			}
			f := n.AsBigFloat()
			if f.IsInf() {
				return cty.NilVal, function.NewArgErrorf(0, "infinity cannot be added")
			}
			total.Add(total, f)
		}
		return cty.NumberVal(total), nil
	},
})

// replaceFunc replaces text, or what a regular expression between slashes
// matches.
var replaceFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "string", Type: cty.String}, {Name: "substring", Type: cty.String}, {Name: "replacement", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []value, _ cty.Type) (value, error) {
		if s := args[1].AsString(); len(s) > 1 && s[0] == '/' && s[len(s)-1] == '/' {
			return stdlib.RegexReplace(args[0], cty.StringVal(s[1:len(s)-1]), args[2])
		}
		return stdlib.Replace(args[0], args[1], args[2])
	},
})
