package heartbeat

import (
	"reflect"
	"unsafe"
)

// clone is a deep copy: what points to one thing does so in the copy. Functions
// are shared.
func clone[T any](v T) T {
	c := cloner{seen: make(map[seenKey]reflect.Value)}
	return c.copy(reflect.ValueOf(&v).Elem()).Interface().(T)
}

type cloner struct{ seen map[seenKey]reflect.Value }

type seenKey struct {
	pointer unsafe.Pointer
	of      reflect.Type
}

// plain are types without pointers of ours, or whose pointers may be shared.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		return false
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[core]().PkgPath() {
			return true // time.Time, netip.Addr
		}
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return false
			}
		}
	case reflect.Array:
		return plain(t.Elem())
	}
	return true
}

func (c *cloner) copy(v reflect.Value) reflect.Value {
	if plain(v.Type()) {
		return v
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		key := seenKey{v.UnsafePointer(), v.Type()}
		if known, ok := c.seen[key]; ok {
			return known
		}
		out := reflect.New(v.Type().Elem())
		c.seen[key] = out
		out.Elem().Set(c.copy(v.Elem()))
		return out
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for i := v.MapRange(); i.Next(); {
			out.SetMapIndex(c.copy(i.Key()), c.copy(i.Value()))
		}
		return out
	case reflect.Slice:
		if v.IsNil() || plain(v.Type().Elem()) && v.Type().Elem().Kind() != reflect.Struct {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(c.copy(v.Index(i)))
		}
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		for i := range v.NumField() {
			from, to := v.Field(i), out.Field(i)
			from = reflect.NewAt(from.Type(), unsafe.Pointer(from.UnsafeAddr())).Elem()
			to = reflect.NewAt(to.Type(), unsafe.Pointer(to.UnsafeAddr())).Elem()
			to.Set(c.copy(from))
		}
		return out
	}
	return v
}
