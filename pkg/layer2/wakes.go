package layer2

// wakes is a heap of entries.
type wakes []*entry

func (w wakes) Len() int { return len(w) }
func (w wakes) Less(i, j int) bool {
	if c := w[i].wake.Compare(w[j].wake); c != 0 {
		return c < 0
	}
	return w[i].addr.Less(w[j].addr)
}
func (w wakes) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push is of heap.Interface.
func (w *wakes) Push(x any) {
	e := x.(*entry)
	e.index = len(*w)
	*w = append(*w, e)
}

// Pop is of heap.Interface.
func (w *wakes) Pop() any {
	last := len(*w) - 1
	e := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	e.index = -1
	return e
}
